import { Player } from "./player.js";
import { Recorder, whyNot } from "./recorder.js";
import { wavBlob } from "./wav.js";
import { Waveform } from "./waveform.js";

const RATE = 24000;
const at = (id) => document.getElementById(id);
const wave = new Waveform(at("wave"));
const replayed = new Audio();
let player = null;
let request = null; // AbortController of the speech that is being made
let recorder = null;
let recording = null; // Blob
let soundUrl = "";
let voices = [];

// What tests and curious people look at.
window.qwen3tts = { samplesPlayed: 0, meter: () => player?.meter ?? null };

// -- the server -------------------------------------------------------------------------------------------------------

function headers(more = {}) {
  const key = at("key").value.trim();
  return key ? { ...more, Authorization: `Bearer ${key}` } : more;
}

async function checked(answer) {
  if (answer.ok) return answer;
  const text = await answer.text();
  let message = `The server answered ${answer.status}.`;
  try {
    message = JSON.parse(text).error.message;
  } catch { /* not the server's own error, a proxy's perhaps */ }
  if (answer.status === 401) at("key").closest("details").open = true;
  throw new Error(message);
}

async function loadState() {
  const health = await (await fetch("/health")).json();
  const states = { idle: "the first speech loads the model", loading: "the model is being loaded", ok: "ready" };
  at("model").textContent = `${health.model}: ${states[health.status] ?? health.error ?? health.status}`;
}

async function loadVoices(chosen = at("voice").value) {
  const list = await (await checked(await fetch("/v1/audio/voices", { headers: headers() }))).json();
  voices = list.voices;
  const options = voices.map((voice) => new Option(voice.description ? `${voice.name} (${voice.description})` : voice.name, voice.id));
  at("voice").replaceChildren(new Option("default", ""), ...options);
  at("voice").value = voices.some((voice) => voice.id === chosen) ? chosen : "";
  const language = at("language").value;
  const languages = list.languages.filter((name) => name !== "auto").map((name) => new Option(name, name));
  at("language").replaceChildren(new Option("automatic", ""), ...languages);
  at("language").value = list.languages.includes(language) ? language : "";
  showDeletable();
}

// -- speaking ---------------------------------------------------------------------------------------------------------

async function speak() {
  const text = at("text").value.trim();
  if (!text) return fail("Type a text first.", at("text"));
  const seed = at("seed").value.trim();
  if (seed && !/^\d{1,15}$/.test(seed)) return fail("A seed is a number.", at("seed"));
  stop();
  clearProblem();
  const mine = (request = new AbortController());
  const own = (player = new Player());
  const body = { input: text, response_format: "pcm" };
  for (const field of ["voice", "language", "instructions"]) if (at(field).value) body[field] = at(field).value;
  if (seed) body.seed = Number(seed);
  show({ speaking: true, state: "Waiting for the first sound…" });
  wave.clear();
  forget();
  const began = performance.now();
  const pieces = [];
  let length = 0;
  try {
    const answer = await checked(
      await fetch("/v1/audio/speech", {
        method: "POST",
        headers: headers({ "Content-Type": "application/json" }),
        body: JSON.stringify(body),
        signal: mine.signal,
      }),
    );
    at("fact-seed").textContent = answer.headers.get("X-Qwen3tts-Seed") ?? "–";
    const reader = answer.body.getReader();
    let odd = new Uint8Array(0); // half a sample
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const bytes = new Uint8Array(odd.length + value.length);
      bytes.set(odd);
      bytes.set(value, odd.length);
      const even = bytes.length - (bytes.length % 2);
      odd = bytes.slice(even);
      if (!even) continue;
      const samples = new Int16Array(bytes.buffer.slice(0, even));
      if (!length) {
        at("fact-first").textContent = `${((performance.now() - began) / 1000).toFixed(2)} s`;
        show({ speaking: true, state: "Speaking." });
      }
      own.play(samples);
      wave.add(samples);
      pieces.push(samples);
      length += samples.length;
      window.qwen3tts.samplesPlayed += samples.length;
      at("fact-length").textContent = `${(length / RATE).toFixed(2)} s`;
    }
    const seconds = (performance.now() - began) / 1000;
    at("fact-factor").textContent = (seconds / (length / RATE)).toFixed(2);
    keep(pieces);
    await own.finished();
    if (request === mine) show({ state: "Done." });
  } catch (error) {
    if (length && !(request && request !== mine)) keep(pieces); // also what was heard of a stopped speech
    if (mine.signal.aborted) return;
    show({ state: "" });
    fail(length ? `The speech broke off. ${error.message}` : error.message);
  } finally {
    if (request === mine) {
      request = null;
      own.stop();
    }
    loadState().catch(() => {});
    if (!voices.some((voice) => voice.kind !== "alias")) loadVoices().catch(() => {});
  }
}

function stop() {
  replayed.pause();
  if (request) {
    request.abort(); // the server hears of it and stops making it
    request = null;
    show({ state: "Stopped." });
  }
  if (player) player.stop();
}

function keep(pieces) {
  soundUrl = URL.createObjectURL(wavBlob(pieces, RATE));
  at("download").href = soundUrl;
  at("download").hidden = false;
  at("replay").disabled = false;
}

function forget() {
  if (soundUrl) URL.revokeObjectURL(soundUrl);
  soundUrl = "";
  at("download").hidden = true;
  at("replay").disabled = true;
  for (const fact of ["seed", "first", "length", "factor"]) at(`fact-${fact}`).textContent = "–";
}

function show({ speaking = false, state }) {
  at("stop").disabled = !speaking;
  at("state").textContent = state;
}

function fail(message, field = null) {
  at("problem").textContent = message;
  at("problem").hidden = false;
  field?.focus();
}

function clearProblem() {
  at("problem").hidden = true;
}

// -- a new voice ------------------------------------------------------------------------------------------------------

async function record() {
  if (recorder) return finishRecording();
  try {
    recorder = new Recorder();
    await recorder.start(finishRecording);
    at("record").textContent = "Stop recording";
    at("record-help").textContent = "Recording, up to 30 s.";
  } catch (error) {
    recorder = null;
    at("record-help").textContent = error.name === "NotAllowedError" ? "The microphone was not allowed." : error.message;
  }
}

function finishRecording() {
  const { blob, seconds } = recorder.stop();
  recorder = null;
  recording = blob;
  at("clip").value = "";
  at("record").textContent = "Record again";
  at("record-help").textContent = `${seconds.toFixed(1)} s recorded.`;
}

async function save() {
  const state = at("upload-state");
  const clip = at("clip").files[0] ?? recording;
  const missing = [
    [!at("name").value.trim(), "name", "Give the voice a name."],
    [!clip, "clip", "Choose a file, or record."],
    [!at("consent").checked, "consent", "The owner of the voice must agree."],
  ].find(([isMissing]) => isMissing);
  if (missing) {
    state.textContent = missing[2];
    at(missing[1]).focus();
    return;
  }
  const form = new FormData();
  form.set("name", at("name").value.trim());
  form.set("audio_sample", clip, clip.name ?? "recording.wav");
  form.set("consent", "The owner of this voice agreed to its cloning (ticked on the server's page).");
  if (at("words").value.trim()) form.set("ref_text", at("words").value.trim());
  state.textContent = "Saving…";
  at("save").disabled = true;
  try {
    const answer = await fetch("/v1/audio/voices", { method: "POST", headers: headers(), body: form });
    const saved = await (await checked(answer)).json();
    state.textContent = `Saved, and chosen above: ${saved.name}.`;
    await loadVoices(saved.id);
  } catch (error) {
    state.textContent = error.message;
  } finally {
    at("save").disabled = false;
  }
}

async function remove() {
  const name = at("voice").value;
  if (!window.confirm(`Delete the voice ${name}?`)) return;
  try {
    await checked(await fetch(`/v1/audio/voices/${encodeURIComponent(name)}`, { method: "DELETE", headers: headers() }));
    at("upload-state").textContent = `Deleted: ${name}.`;
    await loadVoices("");
  } catch (error) {
    at("upload-state").textContent = error.message;
  }
}

function showDeletable() {
  const kind = voices.find((voice) => voice.id === at("voice").value)?.kind;
  at("delete").disabled = !["saved", "stored"].includes(kind);
}

// -- the page ---------------------------------------------------------------------------------------------------------

function onSubmit(form, action) {
  at(form).addEventListener("submit", (event) => {
    event.preventDefault();
    action();
  });
}

onSubmit("speech", speak);
onSubmit("upload", save);
at("stop").addEventListener("click", stop);
at("replay").addEventListener("click", () => {
  stop();
  replayed.src = soundUrl;
  replayed.play();
});
at("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) speak();
});
at("voice").addEventListener("change", showDeletable);
at("key").addEventListener("change", () => loadVoices().catch(() => {}));
at("record").addEventListener("click", record);
at("delete").addEventListener("click", remove);
at("record").disabled = Boolean(whyNot());
at("record-help").textContent = whyNot();
loadState().catch(() => (at("model").textContent = "The server does not answer."));
loadVoices().catch((error) => fail(error.message));
