// The page: joins the call, the sound and what is shown. `window.voicemesh` is for the console and for measurements.

import { Call } from "./call.js";
import { ask, setKey } from "./door.js";
import { Problem } from "./problems.js";
import { Sound, devices } from "./sound.js";
import { Stats } from "./stats.js";
import { Transcript } from "./transcript.js";

const at = (id) => document.getElementById(id);
const call = new Call();
const sound = new Sound(at("voice-out"));
const stats = new Stats(at("stats"));
const transcript = new Transcript(at("log"));
const journal = []; // the last events and sounds, with the audio clock
const KEPT = 4_000;

const STATES = {
  connecting: "connecting",
  listening: "listening",
  user_speaking: "you speak",
  endpointing: "your turn ends?",
  thinking: "thinking",
  speaking: "speaking",
  hold: "held: is it you?",
  interrupted: "interrupted",
  recovering: "recovering",
  suspended: "waiting for you",
  closing: "ending",
};

let withMicrophone = false;
let muted = false;
let made = null; // the generation that is being made and not played yet
let awaited = null; // the generation that is played and whose first sound has not been heard yet
let connecting = null;

function state(name, text) {
  at("state").dataset.state = name;
  at("state").textContent = text ?? STATES[name] ?? name;
}

function problem(text) {
  at("problem-text").textContent = text;
  at("problem").hidden = !text;
}

function note(entry) {
  journal.push({ clockS: sound.context?.currentTime ?? null, ...entry });
  if (journal.length > KEPT) journal.splice(0, KEPT / 2);
}

function session() {
  const wanted = { type: "realtime", audio: { output: {} }, voicemesh: { language: at("language").value || "auto" } };
  wanted.audio.output.voice = at("voice").value || "default";
  return wanted;
}

function show() {
  at("start").textContent = withMicrophone ? "Hang up" : call.wanted ? "Use microphone" : "Start talking";
  at("start").classList.toggle("on", withMicrophone);
  at("mute").disabled = !withMicrophone;
  at("mute").setAttribute("aria-pressed", String(muted));
  at("mute").textContent = muted ? "Unmute" : "Mute";
  at("interrupt").disabled = !call.isOpen;
  at("start-name").textContent = at("start").textContent;
  at("leave").hidden = withMicrophone || !call.wanted; // a call that is only typed …
  at("mute").hidden = !at("leave").hidden; // … has nothing to mute
  at("welcome").hidden = at("log").childElementCount > 0;
}

async function connect() {
  if (call.isOpen) return;
  state("connecting");
  connecting ??= call.open(sound.track, session()).finally(() => (connecting = null));
  await connecting;
}

// Everything that may fail before or while a person talks ends in a sentence.
async function trying(what) {
  problem("");
  try {
    await what();
  } catch (error) {
    problem(error instanceof Problem ? error.message : `That did not work: ${error.message ?? error}`);
    if (!call.isOpen) {
      call.hangUp();
      withMicrophone = false;
      sound.silence();
      state("idle", "not connected");
    }
    if (error.needsKey) askForKey(what);
  }
  show();
}

// Then what was tried is tried again.
function askForKey(what) {
  const dialog = at("door");
  dialog.onclose = () => {
    if (dialog.returnValue !== "enter" || !at("key").value) return;
    setKey(at("key").value);
    at("key").value = "";
    listVoices();
    trying(what);
  };
  dialog.showModal();
}

async function start() {
  await sound.open();
  let refused = null;
  try {
    const track = await sound.microphone(at("microphone").value);
    withMicrophone = true;
    muted = false;
    await call.replaceTrack(track);
  } catch (error) {
    refused = error; // typing still works, so the call is opened all the same
  }
  show();
  await connect();
  listDevices();
  if (refused) throw refused;
}

function hangUp() {
  call.hangUp();
  transcript.broken();
  withMicrophone = muted = false;
  sound.silence();
  state("idle", "not connected");
  show();
}

async function send(text) {
  await sound.open();
  await connect();
  const content = [{ type: "input_text", text }];
  call.send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
  call.send({ type: "response.create" });
}

function interrupt() {
  if (call.send({ type: "response.cancel" })) note({ kind: "interrupt" });
}

async function listDevices() {
  const { inputs, outputs } = await devices();
  fill(at("microphone"), inputs.map((device) => [device.deviceId, device.label || "Microphone"]), "default");
  fill(at("speaker"), outputs.map((device) => [device.deviceId, device.label || "Loudspeaker"]), "default");
  at("speaker").disabled = !("setSinkId" in HTMLMediaElement.prototype);
}

function fill(select, options, first) {
  const chosen = select.value;
  select.replaceChildren(new Option(first, ""), ...options.map(([value, label]) => new Option(label, value)));
  if ([...select.options].some((option) => option.value === chosen)) select.value = chosen;
}

async function listVoices() {
  try {
    const known = await (await ask("/v1/audio/voices")).json();
    const label = (voice) => [voice.name, voice.language || voice.description].filter(Boolean).join(" · ");
    fill(at("voice"), (known.voices ?? []).map((voice) => [voice.name, label(voice)]), "default");
    const languages = (known.languages ?? []).filter((language) => language.toLowerCase() !== "auto");
    fill(at("language"), languages.map((language) => [language, language]), "automatic");
  } catch {
    /* the speech stages may still be loading; the defaults stay */
  }
}

call.addEventListener("voice", ({ detail }) => sound.play(detail));
call.addEventListener("lost", () => {
  state("lost", "reconnecting…");
  transcript.broken();
  transcript.note("connection lost, coming back");
  note({ kind: "lost" });
});
call.addEventListener("resumed", () => {
  transcript.note("back again");
  note({ kind: "resumed" });
  problem("");
  show();
});
call.addEventListener("ended", ({ detail }) => {
  hangUp();
  problem(`The conversation was lost. ${detail.message}`);
});

call.addEventListener("event", ({ detail: event }) => {
  note({ kind: "event", event });
  transcript.handle(event);
  switch (event.type) {
    case "session.created":
      state("listening");
      if (at("voice").options.length === 1) listVoices(); // the speech stages were still loading before
      break;
    case "voice.state":
      state(event.state);
      break;
    case "response.created":
      made = Number(event.response.metadata?.generation_id);
      awaited = null; // what is heard until it is played is the rest of the one before
      break;
    case "output_audio_buffer.started":
      [awaited, made] = [made, null];
      break;
    case "response.done":
      made = awaited = null;
      break;
    case "voice.user_away":
      transcript.note("still there?");
      break;
    case "error":
      problem(event.error.message);
      break;
  }
  show();
});

for (const kind of ["sound", "silence"]) {
  sound.addEventListener(kind, ({ detail }) => {
    note({ kind, who: detail.who, atS: detail.atS });
    if (kind === "sound" && detail.who === "it" && awaited !== null) heard(detail.atS);
  });
}
sound.addEventListener("level", ({ detail: { who, peak } }) => {
  at(`level-${who}`).value = Math.sqrt(Math.min(1, peak));
});
sound.addEventListener("blocked", () => problem("The browser blocks sound until you press a button here."));
sound.addEventListener("unplugged", () => {
  if (withMicrophone) trying(async () => call.replaceTrack(await sound.microphone("")));
});

// The first sound of an answer leaves the loudspeaker at `atS` of the audio clock: say so when it has.
function heard(atS) {
  const generation = awaited;
  awaited = null;
  const outMs = sound.outputTimeMs(atS);
  const tell = () => {
    const ageMs = Math.max(0, performance.now() - outMs) + (call.rttMs ?? 0) / 2;
    call.send({ type: "voice.heard", generation_id: generation, age_ms: ageMs });
  };
  setTimeout(tell, Math.max(0, outMs - performance.now()));
}

setInterval(async () => {
  if (!call.isOpen) return;
  call.send({ type: "voice.ping", client_ms: performance.now() });
  const now = await stats.read(call).catch(() => null);
  if (now) call.send({ type: "voice.client_stats", ...now });
}, 1_000);

at("start").addEventListener("click", () => (withMicrophone ? hangUp() : trying(start)));
at("interrupt").addEventListener("click", interrupt);
at("leave").addEventListener("click", hangUp);
at("mute").addEventListener("click", () => {
  muted = !muted;
  if (sound.track) sound.track.enabled = !muted;
  show();
});
at("problem-close").addEventListener("click", () => problem(""));
at("compose").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = at("text").value.trim();
  if (!text) return;
  at("text").value = "";
  trying(() => send(text));
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape") interrupt();
});
for (const id of ["voice", "language"]) {
  at(id).addEventListener("change", () => call.send({ type: "session.update", session: session() }));
}
at("microphone").addEventListener("change", () => {
  if (withMicrophone) trying(async () => call.replaceTrack(await sound.microphone(at("microphone").value)));
});
at("speaker").addEventListener("change", () => sound.speaker(at("speaker").value));
navigator.mediaDevices?.addEventListener?.("devicechange", listDevices);

const narrow = matchMedia("(max-width: 820px)");
const fold = () => ["settings", "numbers"].forEach((id) => (at(id).open = !narrow.matches));
narrow.addEventListener("change", fold);
fold();
if (!window.isSecureContext) problem("This page is not secure, so browsers give it no microphone. Open it by https, or on localhost. Typing works.");
listVoices();
listDevices();
show();
window.voicemesh = { call, sound, journal, stats };
