// Listens to one stream on the audio thread: when something becomes audible, when it falls silent, and how loud it is.
// Times are the context's clock, exact to the sample, so that two ears of one context can be compared.

const QUIET_S = 0.06; // without an audible sample for so long: silence, since the last one
const LEVEL_EVERY_S = 0.05;

class Ear extends AudioWorkletProcessor {
  constructor(options) {
    super();
    this.threshold = options.processorOptions.threshold;
    this.audible = false;
    this.lastAudible = 0;
    this.peak = 0;
    this.levelDue = 0;
  }

  process([input]) {
    const channel = input[0];
    const now = currentFrame;
    if (channel) {
      for (let i = 0; i < channel.length; i++) {
        const size = Math.abs(channel[i]);
        if (size > this.peak) this.peak = size;
        if (size < this.threshold) continue;
        this.lastAudible = now + i;
        if (!this.audible) {
          this.audible = true;
          this.tell("sound", now + i);
        }
      }
    }
    if (this.audible && now - this.lastAudible > QUIET_S * sampleRate) {
      this.audible = false;
      this.tell("silence", this.lastAudible);
    }
    if (now >= this.levelDue) {
      this.port.postMessage({ kind: "level", peak: this.peak });
      this.peak = 0;
      this.levelDue = now + LEVEL_EVERY_S * sampleRate;
    }
    return true;
  }

  tell(kind, frame) {
    this.port.postMessage({ kind, atS: frame / sampleRate });
  }
}

registerProcessor("ear", Ear);
