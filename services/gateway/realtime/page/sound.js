// Microphone, loudspeaker and the ears that listen to both, on one audio clock.

import { insecure, microphoneProblem } from "./problems.js";

const AUDIBLE_IT = 0.004; // of full scale; decoded silence is far below
const AUDIBLE_YOU = 0.02;

export class Sound extends EventTarget {
  constructor(output) {
    super();
    this.output = output; // the <audio> element: without one Chromium gives WebAudio nothing of a remote track
    this.context = null;
    this.track = null;
    this.ears = { you: null, it: null };
  }

  // Call it from a click: browsers let a page sound only then.
  async open() {
    if (!this.context) {
      this.context = new AudioContext({ latencyHint: "interactive" });
      this.ready = this.context.audioWorklet.addModule("/page/ear-worklet.js");
    }
    if (this.context.state === "suspended") await this.context.resume().catch(() => {});
    await this.ready;
  }

  async microphone(deviceId) {
    if (!navigator.mediaDevices?.getUserMedia) throw insecure();
    const wanted = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };
    if (deviceId) wanted.deviceId = { exact: deviceId };
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: wanted });
    } catch (error) {
      throw microphoneProblem(error);
    }
    this.hush();
    [this.track] = stream.getAudioTracks();
    this.track.addEventListener("ended", () => this.dispatchEvent(new Event("unplugged")));
    this.#listen("you", stream, AUDIBLE_YOU);
    return this.track;
  }

  play(stream) {
    this.output.srcObject = stream;
    this.output.play().catch(() => this.dispatchEvent(new Event("blocked")));
    this.#listen("it", stream, AUDIBLE_IT);
  }

  async speaker(deviceId) {
    if (this.output.setSinkId) await this.output.setSinkId(deviceId).catch(() => {});
  }

  hush() {
    this.track?.stop();
    this.track = null;
    this.#forget("you");
  }

  silence() {
    this.hush();
    this.#forget("it");
    this.output.srcObject = null;
  }

  // When a moment of the context's clock leaves the loudspeaker, by performance.now().
  outputTimeMs(atS) {
    const now = this.context.getOutputTimestamp();
    if (!now.performanceTime) return performance.now() + (atS - this.context.currentTime) * 1000;
    return now.performanceTime + (atS - now.contextTime) * 1000;
  }

  #listen(who, stream, threshold) {
    this.#forget(who);
    const source = this.context.createMediaStreamSource(stream);
    const options = { processorOptions: { threshold }, numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" };
    const ear = new AudioWorkletNode(this.context, "ear", options);
    ear.port.onmessage = ({ data }) => this.dispatchEvent(new CustomEvent(data.kind, { detail: { who, ...data } }));
    source.connect(ear);
    this.ears[who] = { source, ear };
  }

  #forget(who) {
    const known = this.ears[who];
    if (!known) return;
    known.source.disconnect();
    known.ear.port.onmessage = null;
    this.ears[who] = null;
    this.dispatchEvent(new CustomEvent("level", { detail: { who, peak: 0 } }));
  }
}

export async function devices() {
  const all = (await navigator.mediaDevices?.enumerateDevices?.().catch(() => [])) ?? [];
  const named = (kind) => all.filter((device) => device.kind === kind && device.deviceId && device.deviceId !== "default");
  return { inputs: named("audioinput"), outputs: named("audiooutput") };
}
