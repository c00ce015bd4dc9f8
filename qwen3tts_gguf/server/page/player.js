// Plays 24 kHz samples as they arrive. Web Audio, because it works on plain http, and in Safari without a length.

import { toFloat32 } from "./wav.js";

const RATE = 24000;
const AHEAD = 0.08; // seconds between the first samples and their sound, so that the second ones come in time

export class Player {
  // Must be made in a click or key press: browsers start no sound otherwise.
  constructor() {
    this.context = new (window.AudioContext || window.webkitAudioContext)({ sampleRate: RATE });
    this.context.resume();
    this.meter = this.context.createAnalyser();
    this.meter.connect(this.context.destination);
    this.sources = new Set();
    this.end = 0; // on the context's clock, which never drifts from the sound
    this.wasFull = Promise.resolve();
  }

  play(samples) {
    const buffer = this.context.createBuffer(1, samples.length, RATE);
    buffer.copyToChannel(toFloat32(samples), 0);
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.meter);
    const start = Math.max(this.end, this.context.currentTime + (this.end > this.context.currentTime ? 0 : AHEAD));
    source.start(start);
    this.end = start + buffer.duration;
    this.sources.add(source);
    source.onended = () => this.sources.delete(source);
  }

  // Resolves when the last sample was heard.
  async finished() {
    while (this.sources.size > 0 && this.context.state !== "closed") {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  stop() {
    for (const source of this.sources) {
      source.onended = null;
      source.stop();
    }
    this.sources.clear();
    if (this.context.state !== "closed") this.context.close();
  }
}
