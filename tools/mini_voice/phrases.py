"""What the mini voice is taught to say: our own sentence patterns and words, as data.

`{name}` stands for a word list below, `{number}`, `{time}`, `{date}`, `{digits}` for generated ones and `{any}` for a
word drawn from the lexicon. Whoever writes sentences that the mini voice should say well adds their patterns here.
"""

from __future__ import annotations

WORDS: dict[str, str] = {
    "person": (
        "Alice Anna Ben Brian Carol Charles Clara Daniel David Diana Edward Ellen Emma Eric Frank George "
        "Grace Hannah Harry Helen Henry Jack James Jane John Julia Karen Kate Kevin Laura Linda Lucy Mark "
        "Martin Mary Michael Nancy Oliver Oscar Paul Peter Rachel Robert Rose Sam Sarah Simon Sophie Susan "
        "Thomas Victor William"
    ),
    "place": (
        "London Paris Berlin Boston Chicago Dublin Rome Madrid Vienna Lisbon Oslo Moscow Tokyo Sydney Denver "
        "Dallas Canada England France Germany Italy Spain India China Japan Brazil Mexico Africa Europe "
        "America Australia"
    ),
    "noun": (
        "apple army answer author baby bag bank basket battery beach bear bed bell bicycle bird boat book "
        "bottle box bread bridge brother bus cake camera camp candle car castle cat chair child church circle "
        "city class clock cloud coat coffee computer corner cottage country cousin cow cup daughter desk "
        "dinner doctor dog door dream dress driver engine evening face factory farm father field film finger "
        "fire fish floor flower food forest fork friend garden gate girl glass government group hammer hand "
        "hat heart hill horse hospital hotel hour house idea island jacket job journey key king kitchen knife "
        "ladder lake lamp language letter library light line lion market meeting message milk mirror moment "
        "money monkey month moon morning mother mountain mouse music name neighbour newspaper night north "
        "number office orange page paper park party pencil picture pilot plane plant plate pocket poem police "
        "pond potato present price problem program queen question radio rain reason recipe river road roof "
        "room rope salt school science sea season secret shadow sheep ship shirt shoe shop sister sky snow "
        "song soup spoon spring square stage star station stone storm story street student sugar summer sun "
        "table teacher telephone theatre thing ticket tower town train tree uncle valley village voice wall "
        "watch water weather week wheel wind window winter woman wood word work world year"
    ),
    "plural": (
        "animals apples bananas birds boats books boxes bridges buildings cars cats chairs children cities "
        "clocks clouds cups days dogs doors engines farmers fields fingers flowers friends games hills horses "
        "houses ideas islands keys lakes letters lights machines months mountains neighbours numbers oranges "
        "people pictures planes plants plates problems questions rivers roads rooms ships shoes shops songs "
        "spoons stars stations stones stories streets students teachers things tickets towns trains trees "
        "villages voices walls weeks wheels windows women words years"
    ),
    "adjective": (
        "angry bad beautiful big black blue bright broken brown busy calm careful cheap clean clear clever "
        "cold cool dark deep different difficult dirty dry early easy empty expensive famous fast fine free "
        "fresh friendly full funny gentle good great green grey happy hard healthy heavy high honest hot huge "
        "hungry important interesting kind large late lazy light little lonely long loud lovely lucky modern "
        "narrow new nice noisy old open orange perfect pleasant polite poor pretty private proud quick quiet "
        "ready red rich round sad safe serious sharp short silent simple slow small soft special strange "
        "strong sweet tall terrible thick thin tiny tired useful warm weak wet white wide wild wise wonderful "
        "wooden wrong yellow young"
    ),
    "verb": (
        "answer ask begin bring build buy call carry catch change choose clean close collect cook count cut "
        "describe draw drink drive eat explain fill find finish follow forget give hear help hide hold invite "
        "keep know learn leave lift like listen look lose love make meet mention move need notice offer open "
        "order paint pay pick plan play point prepare print promise pull push put read receive remember "
        "repair repeat return run save see sell send share show sing sit sleep speak spend start stay stop "
        "study swim take talk teach tell think throw touch travel try turn understand use visit wait walk "
        "want wash watch wear win work write"
    ),
    "past": (
        "answered asked became began believed bought broke brought built called carried caught changed chose "
        "closed collected cooked counted crossed described discovered dropped enjoyed explained fed followed "
        "forgot found gave heard helped hid ignored invented kept knew learned left lifted liked lost loved "
        "made met missed moved needed noticed offered opened ordered painted passed planned played prepared "
        "promised pulled pushed reached read received remembered repaired saved saw sent shared showed sold "
        "started stopped studied surprised taught threw told took touched turned understood used visited "
        "wanted washed watched wrote"
    ),
    "gerund": (
        "asking building buying carrying cleaning coming cooking dancing drawing drinking driving eating "
        "falling finding fishing going helping hoping learning leaving listening looking making moving "
        "painting playing reading running saving singing sitting sleeping speaking studying swimming talking "
        "teaching thinking travelling trying turning waiting walking washing watching working writing"
    ),
    "adverb": (
        "again always badly carefully clearly early easily finally gently happily here late loudly never "
        "nicely now often once outside perfectly politely quickly quietly rarely sadly slowly softly "
        "sometimes soon suddenly there today together tomorrow tonight twice usually well yesterday"
    ),
    "prep": (
        "above across after against along around at before behind below beside between beyond by for from in "
        "inside into near of off on onto opposite outside over past through to toward under until with "
        "without"
    ),
    "det": "the a this that my your his her our their every another each some any no",
    "the": "the my your his her our their this that",
    "number_word": (
        "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"
    ),
    "weekday": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "month": "January February March April May June July August September October November December",
    "ordinal": (
        "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth twentieth thirtieth"
    ),
    "colour": "red orange yellow green blue purple pink brown black white grey golden silver",
    "animal": (
        "ant bear bee bird bull camel cat chicken cow crow deer dog donkey duck eagle elephant fish fox frog "
        "giraffe goat goose hawk horse lamb lion monkey mouse owl ox penguin pig pony rabbit rat seal shark "
        "sheep snake spider swan tiger turkey turtle whale wolf zebra"
    ),
    "food": (
        "apples bacon bananas beans beef biscuits bread butter cabbage cake carrots cheese cherries chicken "
        "chocolate cookies corn cream eggs fish garlic grapes ham honey jam lemons lettuce meat melon milk "
        "mushrooms noodles nuts olives onions pancakes pasta peaches pears peas pepper pizza plums pork "
        "potatoes pudding rice salad salmon salt sausages soup spinach steak sugar tea toast tomatoes water "
        "wine"
    ),
    "glue": "the a of and to in is that for it with as was on be at by this are from or have not they you we he she",
    "wh": "what where when why who how",
}

PATTERNS: tuple[str, ...] = (
    "The {adjective} {noun} {past} {the} {noun} {prep} the {noun}.",
    "{person} {past} {the} {adjective} {noun}.",
    "{person} and {person} are {gerund} {prep} the {noun}.",
    "I {past} {det} {noun} {prep} {place}.",
    "We {past} {the} {plural} {adverb}.",
    "Can you {verb} the {noun} {prep} the {noun}?",
    "Could you {adverb} {verb} {the} {noun}?",
    "Do you {verb} {the} {adjective} {noun}?",
    "Where is the {adjective} {noun}?",
    "Who {past} {the} {noun} {adverb}?",
    "Why did {person} {verb} {the} {noun}?",
    "How many {plural} did you {verb} {adverb}?",
    "What {adjective} {noun} do they {verb}?",
    "When will {person} {verb} the {plural}?",
    "Is the {noun} {adjective} or {adjective}?",
    "There are {number_word} {plural} {prep} the {noun}.",
    "There were {number} {plural} in {place}.",
    "{number_word} {adjective} {plural} {past} {number_word} {adjective} {plural}.",
    "It is {time} on {weekday}.",
    "The {noun} opens at {time} and closes at {time}.",
    "The meeting is on {weekday}, {month} {ordinal}.",
    "She was born on {date}.",
    "My number is {digits}.",
    "The code is {digits}, I think.",
    "You need {number} {plural} and {number} {food}.",
    "I would like {food}, {food} and {food}, please.",
    "The {animal} {past} the {colour} {animal} {prep} the {noun}.",
    "A {colour} {animal} is {gerund} {prep} {the} {colour} {noun}.",
    "If you {verb} the {noun}, I will {verb} the {noun}.",
    "When the {noun} is {adjective}, the {plural} are {adjective}.",
    "They never {verb} {adverb}, but we always {verb} {adverb}.",
    "Please {verb} {the} {noun} and {verb} {the} {noun}.",
    "Please {verb} it {adverb}.",
    "Don't {verb} the {noun}!",
    "That's a {adjective} {noun}!",
    "What a {adjective} {noun}!",
    "I'm {gerund}, and you're {gerund}.",
    "He can't {verb} the {noun} because it's too {adjective}.",
    "She didn't {verb} {the} {noun}, so {person} {past} it.",
    "Let's {verb} the {adjective} {plural} {prep} {place}.",
    "{person}, did you {verb} my {noun}?",
    "No, {person} {past} the {noun} on {weekday}.",
    "Yes, {the} {noun} is {prep} the {adjective} {noun}.",
    "The {any} of the {any} is {adjective}.",
    "I said {any}, not {any}.",
    "{any} and {any} are {adjective} words.",
    "How do you spell {any}?",
    "The word {any} means {any}.",
    "The {ordinal} {noun} was {adjective}, the {ordinal} was {adjective}, and the {ordinal} was {adjective}.",
    "From {place} to {place} it is {number} miles.",
    "Turn left at the {noun}, then right at the {noun}, and stop {prep} the {noun}.",
    "{the} {noun} looked {adjective}; the {noun} sounded {adjective}.",
    "In {month} the {noun} is {adjective} and the {plural} are {colour}.",
    "Nobody {past} the {noun} until {person} {past} {the} {noun} {prep} the {noun}.",
    "I think that {the} {noun} {past} the {plural} while the {noun} was {gerund}.",
    "{any}.",
    "{any} {any}.",
    "{any}, {any}, {any}.",
    "{wh} {any}?",
    "{number_word}, {number_word}, {number_word}.",
    "{number_word} plus {number_word} is {number_word}.",
    "{adjective} {noun}.",
    "{weekday} {adverb}.",
    "{person}.",
)

FIXED: tuple[str, ...] = (
    "Hello.", "Hello!", "Hello there.", "Hello world.", "Hi.", "Hi there!", "Good morning.", "Good afternoon.",
    "Good evening.", "Good night.", "Goodbye.", "Bye.", "See you later.", "See you tomorrow.", "Thank you.",
    "Thank you very much.", "Thanks a lot.", "You're welcome.", "Please.", "Excuse me.", "I'm sorry.", "Sorry.",
    "No problem.", "Never mind.", "Of course.", "Certainly.", "Yes.", "No.", "Yes, please.", "No, thank you.", "Maybe.",
    "Perhaps.", "Okay.", "All right.", "Sure.", "Great!", "Wonderful!", "That's right.", "That's wrong.", "I see.",
    "I don't know.", "I think so.", "I don't think so.", "I'm not sure.", "I understand.", "I don't understand.",
    "What do you mean?", "Could you repeat that?", "Could you say that again, please?", "How are you?",
    "How are you today?", "I'm fine, thank you.", "And you?", "What's your name?", "My name is Mini.",
    "Nice to meet you.", "Where are you from?", "What time is it?", "What day is it today?", "How old are you?",
    "How much is it?", "Can I help you?", "How can I help you?", "What can I do for you?", "Can you hear me?",
    "I can hear you.", "I can't hear you.", "Are you there?", "I'm listening.", "Go ahead.", "Just a moment, please.",
    "One moment.", "Wait a minute.", "Let me think.", "Let me see.", "That's interesting.", "That's a good question.",
    "Tell me more.", "Really?", "Why?", "Why not?", "Where?", "When?", "How?", "Who?", "What?", "Look!", "Listen!",
    "Stop!", "Be careful!", "Congratulations!", "Happy birthday!", "Good luck!", "Have a nice day.", "Take care.",
    "It's raining.", "It's cold outside.", "The weather is nice today.", "I'm a small voice that runs on this machine.",
    "I'm an offline voice, so I can only say simple things.", "I'm running without a network.",
    "This is a test.", "Testing, one, two, three.", "You said something, but I only know a few answers.",
    "I heard you, but I can't answer that here.", "Would you like to hear something else?",
    "Let's talk about something else.", "Ask me another question.", "Here is what I know about it.",
    "First of all, let me say this.", "In other words, it works.", "For example, try the following sentence.",
    "The quick brown fox jumps over the lazy dog.", "She sells sea shells by the sea shore.",
    "How much wood would a woodchuck chuck?", "Peter Piper picked a peck of pickled peppers.",
)  # fmt: skip
