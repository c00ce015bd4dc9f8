// Draws the loudest sample of each column of pixels, as the speech grows.

export class Waveform {
  constructor(canvas) {
    this.canvas = canvas;
    new ResizeObserver(() => this.draw()).observe(canvas);
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    this.clear();
  }

  clear() {
    this.peaks = []; // one per 10 ms
    this.draw();
  }

  add(samples) {
    for (let start = 0; start < samples.length; start += 240) {
      let peak = 0;
      for (let i = start; i < Math.min(start + 240, samples.length); i++) peak = Math.max(peak, Math.abs(samples[i]));
      this.peaks.push(peak / 32768);
    }
    this.draw();
  }

  draw() {
    const { canvas, peaks } = this;
    const ratio = window.devicePixelRatio || 1;
    const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    const height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    context.fillStyle = getComputedStyle(canvas).getPropertyValue("--accent");
    const columns = Math.floor(width / (3 * ratio));
    const perColumn = Math.max(1, peaks.length / columns);
    for (let column = 0; column < columns && column * perColumn < peaks.length; column++) {
      const from = Math.floor(column * perColumn);
      const loudest = Math.max(...peaks.slice(from, Math.max(from + 1, Math.floor((column + 1) * perColumn))));
      const bar = Math.max(ratio, loudest * height * 0.95);
      context.fillRect(column * 3 * ratio, (height - bar) / 2, 2 * ratio, bar);
    }
  }
}
