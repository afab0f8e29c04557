// Parts to choose from and the sliders of the chosen one. `props.value` is {seq, face, values}: slider id → value.
const make = Studio.make;
const root = element.querySelector(".panel");
const PATIENCE = 5000; // milliseconds to wait for an answer before going on without it
let values = {};
let face = 0; // id of the face that the values belong to
let held = null; // the slider under the pointer: {id, start}
let late = null; // a face that came while a slider was held
let keyTimer = 0;
let seq = 0;
let committed = 0; // number of the last gesture that was committed
let answered = 0; // and of the last one that was answered

const chips = Studio.chips(props.parts, { many: false, name: "edit-part", onchange: (name) => Studio.pick(name) });
const list = make(
  "fieldset", { class: "studio-chips" },
  make("legend", {}, "Part"),
  make("p", { class: "studio-help" }, "Click a part on the face, or choose it here."),
  make("div", { class: "studio-chip-row" }, ...chips),
);
const heading = make("h2", { class: "panel-heading" });
const resetPart = make("button", {
  type: "button", class: "studio-small reset-part", onclick: () => {
    props.value = { seq: (seq = committed = Studio.nextSeq()), face, part: Studio.part, values: {} };
    Studio.settle();
    trigger("reset_part");
  },
});
const box = make("div", { class: "panel-sliders" });
root.append(list, make("div", { class: "panel-head" }, heading, resetPart), box);

const label = (name) => props.parts.find((part) => part.name === name)?.label ?? name;
const inUse = () => Object.fromEntries(Object.entries(values).filter(([, value]) => value !== 0));

function send() {
  seq = Studio.nextSeq();
  props.value = { seq, face, part: Studio.part, values: { ...values } };
}

function commit() {
  clearTimeout(keyTimer);
  keyTimer = 0;
  late = null;
  send();
  committed = seq;
  Studio.settle();
  trigger("commit");
}

/** The pointer let go. `change` alone would not do: it does not fire for a thumb that is back where it was. */
function release() {
  if (!held) return;
  const { id, start } = held;
  held = null;
  if ((values[id] ?? 0) !== start) return commit();
  if (Studio.live) Studio.dropLive();
  else Studio.settle();
  if (late) sync(late);
}
for (const name of ["pointerup", "pointercancel"]) {
  const listen = () => (element.isConnected ? release() : removeEventListener(name, listen, true));
  addEventListener(name, listen, true);
}

function preview() {
  send();
  trigger("preview");
}

function row(slider) {
  const id = `slider-${slider.id.replace(/[^a-z0-9]/gi, "-")}`;
  const output = make("output", { for: id, class: "slider-value" });
  const input = make("input", {
    type: "range", class: "bipolar", id, min: -slider.most, max: slider.most, step: 0.05, "aria-describedby": `${id}-help`, "data-slider": slider.id,
  });
  const reset = make("button", {
    type: "button", class: "studio-small", "aria-label": `Reset ${slider.label}`, title: `Reset ${slider.label}`,
    onclick: () => { values[slider.id] = 0; show(); commit(); },
  }, "Reset");
  const show = () => {
    const value = values[slider.id] ?? 0;
    input.value = value;
    const place = (share) => `calc(9px + (100% - 18px) * ${share})`;
    const share = Math.min(1, Math.max(0, 0.5 + value / (2 * slider.most)));
    input.style.setProperty("--from", place(Math.min(share, 0.5)));
    input.style.setProperty("--to", place(Math.max(share, 0.5)));
    output.textContent = value === 0 ? "0" : `${value > 0 ? "+" : "−"}${Math.abs(value).toFixed(2)}`;
    input.setAttribute("aria-valuetext", `${output.textContent}, ${value < 0 ? slider.low : value > 0 ? slider.high : "unchanged"}`);
    reset.disabled = value === 0;
  };
  input.addEventListener("pointerdown", () => { held = { id: slider.id, start: values[slider.id] ?? 0 }; });
  input.addEventListener("input", () => {
    values[slider.id] = Math.abs(input.value) < 0.026 ? 0 : Number(input.value);
    const value = values[slider.id];
    show();
    values[slider.id] = value;
    preview();
    if (held) return;
    // A held arrow key fires many changes; one step of history is enough for all of them.
    clearTimeout(keyTimer);
    keyTimer = setTimeout(commit, 500);
  });
  // Whatever is done next elsewhere, it is done to the face as it is now.
  input.addEventListener("blur", () => keyTimer && commit());
  input.addEventListener("dblclick", () => reset.disabled || reset.click());
  show();
  return make(
    "div", { class: "slider" },
    make(
      "div", { class: "slider-top" },
      make("label", { for: id }, slider.label),
      make("span", { id: `${id}-help`, class: "studio-help", title: slider.help }, slider.help),
      output, reset,
    ),
    make(
      "div", { class: "slider-line" },
      make("span", { "aria-hidden": "true" }, slider.low), input, make("span", { "aria-hidden": "true" }, slider.high),
    ),
  );
}

function render() {
  const part = Studio.part;
  for (const chip of chips) chip.querySelector("input").checked = chip.querySelector("input").value === part;
  heading.textContent = part ? label(part) : "No part chosen yet";
  resetPart.hidden = !part;
  resetPart.textContent = part ? `Reset ${label(part).toLowerCase()}` : "";
  const mine = props.sliders.filter((slider) => slider.part === part);
  box.replaceChildren(...mine.map(row));
  if (part && !mine.length) {
    const why = props.reason || "This part has no sliders in this model. Take it from another face, or draw it anew, under Swap.";
    box.append(make("p", { class: "studio-empty" }, why));
  } else if (!part) {
    box.append(make("p", { class: "studio-empty" }, "Click the hair, the mouth or any other part of the face: its sliders appear here."));
  }
}

function sync(now) {
  if (!now) return;
  answered = now.seq === null ? committed : Math.max(answered, now.seq);
  if (now.id !== face) {
    // What was moved, was moved on the face before.
    if (keyTimer) commit();
    held = null;
    face = now.id;
  } else {
    // An answer to an earlier movement must not pull back the slider that is moving now.
    if (now.seq !== null && now.seq < seq) return;
    if (held || keyTimer) {
      late = now;
      return;
    }
  }
  late = null;
  values = { ...now.sliders };
  for (const input of box.querySelectorAll("input")) {
    const id = input.dataset.slider;
    if (Number(input.value) !== (values[id] ?? 0)) return render();
  }
  for (const input of box.querySelectorAll("input")) {
    const moved = inUse()[input.dataset.slider] !== undefined;
    input.closest(".slider").querySelector("button").disabled = !moved;
  }
}

/** Ends when the last commit was answered, or will not be any more. */
function whenAnswered() {
  const until = Date.now() + PATIENCE;
  return new Promise((done) => {
    const look = () => (answered >= committed || Date.now() > until ? done() : setTimeout(look, 20));
    look();
  });
}

Studio.on("face", element, sync);
Studio.on("flush", element, (answers) => {
  if (keyTimer) commit();
  answers.push(whenAnswered());
});
Studio.on("pick", element, render);
sync(Studio.face);
render();
