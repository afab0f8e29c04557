// The composition, step by step. `props.value` is {key, frames: [{part, label, image, mask, depth, note}]}, or {key, problem}.
const make = Studio.make;
const root = element.querySelector(".panel");
const ROWS = [["image", "Image"], ["mask", "Mask"], ["depth", "Depth"]];
let step = 0;
let timer = 0;
let asked = null;
let thumbs = [];
let drawn = "";

const play = make("button", { type: "button", class: "studio-button studio-primary player-play", onclick: () => (timer ? pause() : start()) }, "Play");
const back = make("button", { type: "button", class: "studio-button", "aria-label": "One step back", onclick: () => { pause(); show(step - 1); } }, "◀");
const next = make("button", { type: "button", class: "studio-button", "aria-label": "One step forward", onclick: () => { pause(); show(step + 1); } }, "▶");
const scrub = make("input", { type: "range", min: 0, max: 0, step: 1, value: 0, "aria-label": "Step", oninput: () => { pause(); show(Number(scrub.value)); } });
const words = make("p", { class: "player-words", "aria-live": "off" });
const retry = make("button", { type: "button", class: "studio-small", hidden: true, onclick: () => { asked = null; ask(); } }, "Try again");
const now = ROWS.map(([name, label]) => make("figure", {}, make("img", { alt: "", "data-row": name }), make("figcaption", {}, label)));
const strip = make("div", { class: "player-strip", tabindex: "0", role: "group", "aria-label": "All steps; arrow keys move" });
root.append(
  make("div", { class: "player-now" }, ...now),
  make("div", { class: "player-said" }, words, retry),
  make("div", { class: "player-bar" }, play, back, next, scrub),
  strip,
);
const speed = () => Number(document.querySelector("#compose-speed input[type=range]")?.value || document.querySelector("#compose-speed input")?.value || 500);
const frames = () => props.value?.frames ?? [];

function show(index) {
  const all = frames();
  if (!all.length) return;
  step = Math.max(0, Math.min(all.length - 1, index));
  const frame = all[step];
  scrub.value = step;
  scrub.setAttribute("aria-valuetext", `Step ${step + 1} of ${all.length}: ${frame.label}`);
  words.textContent = `Step ${step + 1} of ${all.length}: ${frame.label.toLowerCase()}${frame.note}`;
  for (const figure of now) {
    const picture = figure.querySelector("img");
    picture.src = frame[picture.dataset.row];
    picture.alt = `${picture.dataset.row} after this part was added: ${frame.label.toLowerCase()}`;
  }
  thumbs.forEach((thumb, number) => thumb.setAttribute("aria-pressed", String(number === step)));
  const here = thumbs[step];
  if (here) strip.scrollLeft = here.offsetLeft - strip.clientWidth / 2 + here.clientWidth / 2;
  back.disabled = step === 0;
  next.disabled = step === all.length - 1;
  if (Studio.tab === "compose") {
    Studio.emit("show", {
      image: frame.image, title: `Composition, step ${step + 1} of ${all.length}`,
      caption: `Now with: ${frame.label.toLowerCase()}${frame.note}`, alt: `The face after this part was added: ${frame.label.toLowerCase()}`,
    });
  }
}

function start() {
  if (!frames().length) return;
  if (step >= frames().length - 1) show(0);
  play.textContent = "Pause";
  const tick = () => {
    if (!element.isConnected || step >= frames().length - 1) return pause();
    show(step + 1);
    timer = setTimeout(tick, speed());
  };
  timer = setTimeout(tick, speed());
}

function pause() {
  clearTimeout(timer);
  timer = 0;
  play.textContent = "Play";
}

function render() {
  const all = frames();
  pause();
  thumbs = all.map((frame, index) => make(
    "button", { type: "button", class: "player-step", tabindex: "-1", "aria-pressed": "false", onclick: () => { pause(); show(index); } },
    ...ROWS.map(([name]) => make("img", { src: frame[name], alt: "" })),
    make("span", {}, frame.label),
  ));
  strip.replaceChildren(...thumbs);
  scrub.max = Math.max(0, all.length - 1);
  play.disabled = scrub.disabled = !all.length;
  if (all.length) show(all.length - 1);
  else words.textContent = props.value?.problem ?? "The steps are being computed …";
  retry.hidden = !props.value?.problem;
}
strip.addEventListener("keydown", (event) => {
  const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!by) return;
  event.preventDefault();
  pause();
  show(step + by);
});

function ask() {
  const face = Studio.face;
  if (!face || Studio.tab !== "compose") return;
  const key = `${face.face}.${face.revision}`;
  if (props.value?.key === key && frames().length) return show(step);
  if (asked === key) return;
  asked = key;
  if (props.value?.problem) {
    words.textContent = "The steps are being computed …";
    retry.hidden = true;
  }
  trigger("compose");
}
watch("value", () => {
  asked = null;
  const all = frames();
  const made = all.length ? JSON.stringify([props.value.key, all.map((frame) => frame.part)]) : "";
  // What was asked for twice comes twice, and must not stop what is playing.
  if (made && made === drawn) return;
  drawn = made;
  render();
});
Studio.on("face", element, ask);
Studio.on("tab", element, (tab) => {
  if (tab !== "compose") return pause();
  asked = null; // what was asked for before may never have been answered
  ask();
});
render();
ask();
