// Records the microphone as WAV made in the page, so that the server needs no decoder for what browsers like to record.

import { toInt16, wavBlob } from "./wav.js";

const MOST_SECONDS = 30;

// Why recording is not possible here, or "".
export function whyNot() {
  if (!window.isSecureContext) return "Browsers record only on https pages and on localhost. Choose a file.";
  if (!navigator.mediaDevices?.getUserMedia) return "This browser cannot record. Choose a file.";
  return "";
}

export class Recorder {
  // onFull: called when the longest recording is reached.
  async start(onFull) {
    this.stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false },
    });
    this.context = new AudioContext();
    await this.context.audioWorklet.addModule("/page/recording-worklet.js");
    this.pieces = [];
    this.node = new AudioWorkletNode(this.context, "recording", { numberOfOutputs: 0 });
    this.node.port.onmessage = ({ data }) => this.pieces.push(toInt16(data));
    this.context.createMediaStreamSource(this.stream).connect(this.node);
    this.timer = setTimeout(onFull, 1000 * MOST_SECONDS);
  }

  // The recording, and its length in seconds.
  stop() {
    clearTimeout(this.timer);
    this.stream.getTracks().forEach((track) => track.stop());
    const rate = this.context.sampleRate;
    this.context.close();
    const samples = this.pieces.reduce((sum, piece) => sum + piece.length, 0);
    return { blob: wavBlob(this.pieces, rate), seconds: samples / rate };
  }
}
