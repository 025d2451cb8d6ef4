// Both sides of the conversation as they are said: how far an answer was heard, where it was cut, what it cost.

import { STAGES, bar, html, ms, total } from "./stages.js";

const KEPT = 300; // items; a call of hours must not fill the browser

export class Transcript {
  constructor(list) {
    this.list = list;
    this.items = new Map();
    this.byTurn = new Map();
  }

  clear() {
    this.items.clear();
    this.byTurn.clear();
    this.list.replaceChildren();
  }

  note(text) {
    this.list.append(html("li", { className: "note" }, text));
    this.#follow();
  }

  handle(event) {
    switch (event.type) {
      case "input_audio_buffer.speech_started":
        return this.#item(event.item_id, "you");
      case "conversation.item.added":
        if (event.item.role === "user") this.#typed(event.item);
        return;
      case "conversation.item.input_audio_transcription.delta":
        return this.#grow(this.#item(event.item_id, "you"), event.delta);
      case "conversation.item.input_audio_transcription.completed":
        return this.#set(this.#item(event.item_id, "you"), event.transcript, true);
      case "voice.transcript":
        return this.#set(this.items.get(event.item_id), event.text);
      case "response.content_part.added":
        return this.#item(event.item_id, "it");
      case "response.created":
        this.turn = event.response.metadata?.turn_id;
        return;
      case "response.output_audio_transcript.delta":
        return this.#grow(this.#item(event.item_id, "it"), event.delta);
      case "response.output_audio_transcript.done":
        return this.#set(this.#item(event.item_id, "it"), event.transcript);
      case "voice.heard_text":
        return this.#heard(this.items.get(event.item_id), event.heard_characters);
      case "response.done":
        return this.#done(event.response);
      case "voice.metrics":
        return this.#measured(event);
      case "voice.backchannel":
        return this.note("“mhm” heard, it goes on");
      case "voice.false_interruption":
        return event.resumed && this.note("nobody spoke after all, it goes on");
    }
  }

  // The call was lost: what was being said is not said on.
  broken() {
    for (const item of this.items.values()) {
      if (item.who === "it" && item.over === null) {
        item.over = "cancelled";
        this.#render(item);
      }
    }
  }

  #item(id, who) {
    let item = this.items.get(id);
    if (item) return item;
    const text = html("span", { className: "text" });
    const element = html("li", { className: who }, html("span", { className: "who" }, who === "you" ? "You" : "Voicemesh"), text);
    item = { who, element, textElement: text, text: [], heard: 0, over: null, turn: who === "it" ? this.turn : null };
    this.items.set(id, item);
    for (const map of [this.items, this.byTurn]) if (map.size > KEPT) map.delete(map.keys().next().value);
    if (item.turn) this.byTurn.set(item.turn, item);
    this.list.append(element);
    while (this.list.childElementCount > KEPT) this.list.firstElementChild.remove();
    this.#render(item);
    return item;
  }

  #typed(added) {
    const text = added.content.map((part) => part.text ?? part.transcript ?? "").join("\n");
    const item = this.#item(added.id, "you");
    if (text) this.#set(item, text, true);
  }

  #grow(item, delta) {
    item.text.push(...delta);
    this.#render(item);
  }

  #set(item, text, final = false) {
    if (!item) return;
    item.text = [...text];
    item.final ||= final;
    this.#render(item);
  }

  #heard(item, characters) {
    if (!item) return;
    item.heard = characters;
    this.#render(item);
  }

  #done(response) {
    const item = this.items.get(response.output?.[0]?.id);
    if (!item) return;
    item.over = response.status;
    if (response.status === "completed") item.heard = item.text.length;
    if (response.status === "failed") this.note(response.status_details?.error?.message ?? "The answer failed.");
    this.#render(item);
  }

  #measured({ turn_id: turn, stages_ms: stages }) {
    const item = this.byTurn.get(String(turn));
    if (!item) return;
    const rows = STAGES.filter(([name]) => name in stages).map(([name, label, meaning]) =>
      html("li", { title: meaning }, html("span", { className: `key key-${name}` }), label, html("b", {}, ms(stages[name]))),
    );
    const heard = "client" in stages ? "until you heard it" : "until it was sent";
    const fresh = html(
      "details",
      { className: "turn", open: item.turnElement?.open ?? false },
      html("summary", {}, `${ms(total(stages))} ${heard}`, bar(stages)),
      html("ul", {}, ...rows),
    );
    if (item.turnElement) item.turnElement.replaceWith(fresh);
    else item.element.append(fresh);
    item.turnElement = fresh;
    this.#follow();
  }

  #render(item) {
    const { text } = item;
    if (item.who === "you") {
      const words = text.join("");
      item.textElement.replaceChildren(words || html("span", { className: "wait" }, item.final ? "(nothing understood)" : "…"));
    } else {
      const heard = Math.min(item.heard, text.length);
      const rest = text.slice(heard).join("");
      const wasCut = item.over !== null && item.over !== "completed";
      const parts = [html("span", { className: "heard" }, text.slice(0, heard).join(""))];
      if (rest) parts.push(html("span", { className: wasCut ? "unheard" : "ahead" }, rest));
      if (wasCut) parts.splice(1, 0, html("span", { className: "cut" }, item.over === "cancelled" ? " ⟂ cut " : " ⟂ "));
      if (!text.length && item.over === null) parts.push(html("span", { className: "wait" }, "…"));
      item.textElement.replaceChildren(...parts);
    }
    this.#follow();
  }

  #follow() {
    const { list } = this;
    if (list.scrollHeight - list.scrollTop - list.clientHeight < 160) list.scrollTop = list.scrollHeight;
  }
}
