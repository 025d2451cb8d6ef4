// What the browser itself measures of the call, once a second.

import { html } from "./stages.js";

const whole = (value) => `${Math.round(value)} ms`;
const ROWS = [
  ["rtt_ms", "Round trip", whole, "to the gateway and back"],
  ["jb_ms", "Jitter buffer", whole, "how long packets wait here against an uneven network"],
  ["playout_ms", "Playout device", whole, "from the browser to the loudspeaker"],
  ["jitter_ms", "Jitter", (value) => `${value.toFixed(1)} ms`, "how unevenly packets come"],
  ["received", "Packets received", String, ""],
  ["lost", "Packets lost", String, ""],
  ["repaired", "Repaired by redundancy", String, "packets that were rebuilt from the one after them"],
  ["late", "Too late, discarded", String, "they came out of order and after their turn"],
  ["gaps", "Gaps", String, "moments at which nothing was there to play, within speech or between"],
  ["concealed_ms", "Gaps filled in speech", whole, "sound that the browser made up"],
  ["repeats_ms", "Stretched", whole, "sound that was repeated to wait for more"],
  ["skipped_ms", "Shortened", whole, "sound that was left out to catch up"],
];

export class Stats {
  constructor(list) {
    this.cells = new Map();
    for (const [name, label, , meaning] of ROWS) {
      const cell = html("dd", {}, "–");
      cell.id = `stat-${name}`;
      this.cells.set(name, cell);
      list.append(html("dt", { title: meaning }, label), cell);
    }
    this.before = {};
  }

  // The numbers of now; delays are those of the last second.
  async read(call) {
    if (!call.peer) return null;
    const reports = [...(await call.peer.getStats()).values()];
    const rtp = reports.find((report) => report.type === "inbound-rtp" && report.kind === "audio");
    const pair = reports.find((report) => report.type === "candidate-pair" && report.nominated && report.state === "succeeded");
    const playout = reports.find((report) => report.type === "media-playout");
    if (!rtp) return null;
    const inMs = (samples) => samples / 48;
    const now = {
      rtt_ms: pair?.currentRoundTripTime === undefined ? call.rttMs : pair.currentRoundTripTime * 1000,
      jb_ms: this.#since("jb", rtp.jitterBufferDelay, rtp.jitterBufferEmittedCount),
      playout_ms: this.#since("playout", playout?.totalPlayoutDelay, playout?.totalSamplesCount),
      jitter_ms: (rtp.jitter ?? 0) * 1000,
      received: rtp.packetsReceived ?? 0,
      lost: rtp.packetsLost ?? 0,
      repaired: (rtp.fecPacketsReceived ?? 0) - (rtp.fecPacketsDiscarded ?? 0),
      late: rtp.packetsDiscarded ?? 0,
      gaps: rtp.concealmentEvents ?? 0,
      concealed_ms: inMs((rtp.concealedSamples ?? 0) - (rtp.silentConcealedSamples ?? 0)),
      repeats_ms: inMs(rtp.insertedSamplesForDeceleration ?? 0),
      skipped_ms: inMs(rtp.removedSamplesForAcceleration ?? 0),
    };
    for (const [name, , format] of ROWS) {
      const value = now[name];
      this.cells.get(name).textContent = value === null || value === undefined ? "–" : format(value);
    }
    return Object.fromEntries(Object.entries(now).filter(([, value]) => Number.isFinite(value)));
  }

  #since(name, sumS, count) {
    if (sumS === undefined || count === undefined) return null;
    const before = this.before[name] ?? { sumS: 0, count: 0 };
    this.before[name] = { sumS, count };
    if (count < before.count) return null; // a new call
    return count > before.count ? ((sumS - before.sumS) / (count - before.count)) * 1000 : null;
  }
}
