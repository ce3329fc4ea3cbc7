// Tones by WebAudio. A browser stays silent until the page was touched once; `start` is to be called from a touch.
const NOTES = { // [hertz, start, length, shape] in seconds
  tick: [[1900, 0, 0.035, "square"]],
  good: [[880, 0, 0.11, "sine"], [1319, 0.12, 0.22, "sine"]],
  bad: [[196, 0, 0.24, "sawtooth"], [147, 0.26, 0.38, "sawtooth"]],
  wait: [[523, 0, 0.12, "triangle"], [523, 0.2, 0.12, "triangle"]],
  offline: [[880, 0, 0.11, "sine"], [880, 0.16, 0.11, "sine"], [1319, 0.32, 0.22, "sine"]],
  again: [[740, 0, 0.07, "square"], [740, 0.12, 0.07, "square"], [740, 0.24, 0.07, "square"]],
};
const SHAKES = { good: [60], offline: [60, 60, 60], bad: [180, 80, 180], wait: [40, 80, 40], again: [40, 60, 40, 60, 40] };
const LOUD = { sine: 0.5, triangle: 0.5, square: 0.16, sawtooth: 0.28 };

export class Sound {
  constructor() {
    this.context = null;
    this.muted = localStorage.getItem("muted") === "yes";
  }

  get silent() {
    return !this.muted && this.context?.state !== "running";
  }

  async start() {
    this.context ??= new AudioContext({ latencyHint: "interactive" });
    if (this.context.state !== "running") await this.context.resume();
  }

  mute(muted) {
    this.muted = muted;
    localStorage.setItem("muted", muted ? "yes" : "no");
  }

  play(tone) {
    if (this.muted) return;
    if (SHAKES[tone] && navigator.userActivation?.hasBeenActive) navigator.vibrate?.(SHAKES[tone]);
    if (this.silent) return;
    for (const [hertz, start, length, shape] of NOTES[tone] ?? []) this.#note(hertz, start, length, shape);
  }

  #note(hertz, start, length, shape) {
    const at = this.context.currentTime + start;
    const voice = new OscillatorNode(this.context, { type: shape, frequency: hertz });
    const gain = new GainNode(this.context, { gain: 0 });
    gain.gain.setValueAtTime(0, at);
    gain.gain.linearRampToValueAtTime(LOUD[shape], at + 0.005);
    gain.gain.setValueAtTime(LOUD[shape], at + length - 0.01);
    gain.gain.linearRampToValueAtTime(0, at + length);
    voice.connect(gain).connect(this.context.destination);
    voice.start(at);
    voice.stop(at + length + 0.01);
  }
}
