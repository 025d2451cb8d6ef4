// One conversation with the gateway: WebRTC for the sound, OpenAI's realtime events on a data channel, and coming back
// with the session's token when the way is lost. Knows no element of the page.

import { ask } from "./door.js";
import { Problem, noMediaPath, refusalOf, unreachable } from "./problems.js";

const URL_CALLS = "/v1/realtime/calls";
const OPEN_MS = 12_000;
const GRACE_MS = 2_500; // a path that is "disconnected" often heals by itself
const RESUME_MS = 30_000; // as long as the gateway keeps a session
const BACKOFF_MS = [300, 800, 1_500, 3_000, 5_000];

export class Call extends EventTarget {
  constructor() {
    super();
    this.peer = null;
    this.channel = null;
    this.location = null;
    this.token = null;
    this.track = null;
    this.session = {};
    this.wanted = false;
    this.resuming = false;
    this.rttMs = null;
    addEventListener("online", () => this.wanted && !this.isOpen && this.#resume());
    addEventListener("pagehide", (event) => event.persisted || this.hangUp());
  }

  get isOpen() {
    return this.channel?.readyState === "open";
  }

  // `track` may be null: then it is a call for typing. `session` is a session object of OpenAI's.
  async open(track, session) {
    this.track = track;
    this.session = session;
    this.wanted = true;
    this.token = null;
    await this.#connect();
  }

  async replaceTrack(track) {
    this.track = track;
    await this.sender?.replaceTrack(track);
  }

  send(event) {
    if (this.isOpen) this.channel.send(JSON.stringify(event));
    return this.isOpen;
  }

  hangUp() {
    this.wanted = false;
    this.token = null;
    const location = this.location;
    this.#drop();
    if (location) ask(location, { method: "DELETE", keepalive: true }).catch(() => {});
  }

  async #connect() {
    this.#drop();
    const peer = (this.peer = new RTCPeerConnection({ iceServers: await this.#iceServers() }));
    const channel = (this.channel = peer.createDataChannel("oai-events"));
    const transceiver = peer.addTransceiver("audio", { direction: "sendrecv" });
    this.sender = transceiver.sender;
    if (this.track) await this.sender.replaceTrack(this.track);
    peer.ontrack = ({ track }) => this.#tell("voice", new MediaStream([track]));
    peer.onconnectionstatechange = () => this.#changed(peer);
    channel.onmessage = ({ data }) => this.#received(data);
    const opened = new Promise((resolve, reject) => {
      channel.onopen = resolve;
      this.failOpening = reject;
      setTimeout(() => reject(noMediaPath()), OPEN_MS);
    });
    opened.catch(() => {});
    try {
      await peer.setLocalDescription();
      await this.#gathered(peer);
      await peer.setRemoteDescription({ type: "answer", sdp: await this.#offer(peer.localDescription.sdp) });
      await opened;
    } catch (error) {
      if (this.peer === peer) this.#drop();
      throw error instanceof Problem ? error : new Problem(`The browser could not open the call: ${error.message ?? error}`);
    }
    channel.onclose = () => this.#lost(peer);
  }

  // STUN and TURN as the gateway is configured; usually none.
  async #iceServers() {
    let response;
    try {
      response = await ask("/v1/realtime/ice");
    } catch {
      throw unreachable();
    }
    if (!response.ok) throw await refusalOf(response);
    return (await response.json()).iceServers ?? [];
  }

  async #offer(sdp) {
    const form = new FormData();
    form.set("sdp", new Blob([sdp], { type: "application/sdp" }));
    form.set("session", new Blob([JSON.stringify(this.session)], { type: "application/json" }));
    const headers = this.token ? { "Voicemesh-Resume-Token": this.token } : {};
    let response;
    try {
      response = await ask(URL_CALLS, { method: "POST", body: form, headers });
    } catch {
      throw unreachable();
    }
    if (!response.ok) throw await refusalOf(response);
    this.location = response.headers.get("Location");
    return response.text();
  }

  // The gateway knows no trickle: the offer carries its candidates. Host candidates are there at once.
  #gathered(peer) {
    return new Promise((resolve) => {
      if (peer.iceGatheringState === "complete") return resolve();
      peer.onicegatheringstatechange = () => peer.iceGatheringState === "complete" && resolve();
      setTimeout(resolve, 1_000);
    });
  }

  #received(data) {
    let event;
    try {
      event = JSON.parse(data);
    } catch {
      return;
    }
    if (event.type === "session.created") this.token = event.session?.voicemesh?.resume_token ?? null;
    if (event.type === "voice.pong") this.rttMs = Math.max(0, performance.now() - event.client_ms);
    this.#tell("event", event);
  }

  #changed(peer) {
    if (this.peer !== peer) return;
    if (peer.connectionState === "failed") {
      this.failOpening?.(noMediaPath());
      this.#lost(peer);
    } else if (peer.connectionState === "disconnected") {
      setTimeout(() => peer.connectionState === "disconnected" && this.#lost(peer), GRACE_MS);
    }
  }

  #lost(peer) {
    if (this.peer === peer && this.wanted && this.token) this.#resume();
  }

  async #resume() {
    if (this.resuming) return;
    this.resuming = true;
    this.#tell("lost");
    const until = performance.now() + RESUME_MS;
    let last = unreachable();
    for (let attempt = 0; this.wanted && performance.now() < until; attempt++) {
      try {
        await this.#connect();
        this.resuming = false;
        return this.#tell("resumed");
      } catch (problem) {
        last = problem;
        if (!problem.canRetry) break;
      }
      await new Promise((resolve) => setTimeout(resolve, BACKOFF_MS[Math.min(attempt, BACKOFF_MS.length - 1)]));
    }
    this.resuming = false;
    if (!this.wanted) return;
    this.wanted = false;
    this.#drop();
    this.#tell("ended", last);
  }

  #drop() {
    this.location = null;
    if (this.channel) this.channel.onclose = this.channel.onmessage = null;
    if (this.peer) this.peer.onconnectionstatechange = this.peer.ontrack = null;
    this.peer?.close();
    this.peer = this.channel = null;
  }

  #tell(kind, detail) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }
}
