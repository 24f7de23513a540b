// A recording from the microphone, with its time and level.
import { say } from "./announce.js";
import { button, el, write } from "./dom.js";
import { clock } from "./format.js";
import { t } from "./i18n.js";

const TYPES = [["audio/webm;codecs=opus", "webm"], ["audio/mp4", "m4a"], ["audio/ogg;codecs=opus", "ogg"]];

// Browsers give the microphone to https and to this machine only.
export const canRecord = () => Boolean(window.isSecureContext && navigator.mediaDevices?.getUserMedia && window.MediaRecorder);

export function recorderPanel({ close, take }) {
  const panel = el("div", { class: "inset" });
  const begin = button(t("record.start"), () => start(panel, { close, take }), { kind: "primary", symbol: "mic" });
  panel.append(el("p", { class: "hint" }, t("record.hint")), begin);
  return panel;
}

async function start(panel, { close, take }) {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  } catch {
    panel.append(el("p", { class: "problem", role: "alert" }, t("record.refused")));
    return;
  }
  const [type, extension] = TYPES.find(([name]) => MediaRecorder.isTypeSupported(name)) ?? ["", "webm"];
  const recorder = new MediaRecorder(stream, type ? { mimeType: type } : {});
  const parts = [];
  let keep = false;
  const time = el("span", { class: "numeric", role: "timer", "aria-live": "off" }, clock(0));
  const meter = el("meter", { min: 0, max: 1, "aria-label": t("record.level") });
  const stopMeter = watchLevel(stream, meter);
  const started = performance.now();
  const timer = setInterval(() => {
    write(time, clock((performance.now() - started) / 1000));
    if (!panel.isConnected && recorder.state !== "inactive") {
      keep = true; // the view was left: a recording is never lost
      recorder.stop();
    }
  }, 250);
  recorder.ondataavailable = (event) => parts.push(event.data);
  recorder.onstop = () => {
    clearInterval(timer);
    stopMeter();
    stream.getTracks().forEach((track) => track.stop());
    if (keep && parts.length) take([new File(parts, `${t("record.name")} ${stamp()}.${extension}`, { type: recorder.mimeType })]);
    close();
  };
  const done = button(t("record.send"), () => { keep = true; recorder.stop(); }, { kind: "primary", symbol: "stop" });
  panel.replaceChildren(
    el("div", { class: "recorder" }, el("span", { class: "dot" }), time, meter),
    el("div", { class: "actions" }, button(t("record.discard"), () => recorder.stop(), { kind: "plain" }), done));
  recorder.start(1000);
  done.focus();
  say(t("record.running"));
}

function watchLevel(stream, meter) {
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  analyser.fftSize = 1024;
  context.createMediaStreamSource(stream).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
    meter.value = Math.min(1, Math.max(0, (10 * Math.log10(power + 1e-9) + 60) / 60));
  }, 80);
  return () => { clearInterval(timer); context.close(); };
}

function stamp() {
  const now = new Date();
  return new Date(now - now.getTimezoneOffset() * 60000).toISOString().slice(0, 16).replace("T", " ").replace(":", "-");
}
