"""A story that is long enough to be interrupted. Written for this project; plain words, short sentences."""

STORY = """\
Here is a long story. You may interrupt me at any time. \
Once upon a time there was a lighthouse at the end of a very long road. \
In the lighthouse lived an old keeper called Martha, a grey cat without a name, and a clock that was always late. \
Every evening Martha climbed the stairs, one hundred and twelve of them, and lit the lamp. \
Every morning she climbed them again and put it out. \
The cat went with her, but only half of the way, and waited there until she came back. \
One night in November the lamp went dark. \
Martha turned the key, and nothing happened. \
She knocked on the glass, and nothing happened. \
She said a word that the cat had never heard before, and still nothing happened. \
Out on the sea there was a ship, and on the ship there was a captain who looked for the light. \
Where is the lighthouse, asked the captain. \
It has always been there, said the helmsman, between the moon and the hill. \
But there was no moon that night, and nobody could see the hill. \
So Martha did what she had never done before. \
She carried everything that could make a noise to the top of the tower. \
She carried the pots and the pans, the dinner bell, and the clock that was always late. \
She beat the pots with a wooden spoon, and she rang the bell, and the cat sang as loud as it could. \
At midnight the clock began to strike, seven minutes late, as it always did. \
The captain heard it. \
That is a clock, said the captain, and it is seven minutes late. \
I know only one clock like that in the whole world. \
Turn the ship to the left, and slowly, please. \
And the ship turned to the left, and slowly, and it passed the rocks with a little room to spare. \
In the morning the captain came up the long road with a new lamp under one arm and a fish for the cat under the other. \
They had breakfast together, and they talked until noon. \
I could mend your clock as well, said the captain when it was time to go. \
No, thank you, said Martha. \
It is only late. \
It has never once been wrong when it mattered. \
From that day on the cat had a name, and the name was Midnight. \
And if you go to the end of that very long road, you can still hear the clock, seven minutes after everybody else. \
That is the end of the story."""
