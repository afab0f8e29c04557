// What to take from the other face. `props.value` is {seq, parts, group, amount}.
const make = Studio.make;
const root = element.querySelector(".panel");
const GROUPS = [
  ["all", "Shape and texture", "all layers of the part (paper, section 4.5)"],
  ["shape", "Shape only", "shape layers"],
  ["texture", "Texture only", "texture layers"],
  ["blend", "Blend everything", "interpolates every layer of the part, also where and how it sits"],
];
let chosen = [];
let seq = 0;
let waiting = false; // a preview is wanted as soon as there is another face

const chips = Studio.chips(props.parts, { many: true, name: "swap-part", onchange: (name, on) => choose(name, on) });
const all = make("button", { type: "button", class: "studio-small", onclick: () => setAll(true) }, "All parts");
const none = make("button", { type: "button", class: "studio-small", onclick: () => setAll(false) }, "None");
const groups = GROUPS.map(([name, label, help]) => {
  const input = make("input", { type: "radio", name: "swap-group", value: name, checked: name === "all", onchange: preview });
  return make("label", { class: "studio-chip", title: help }, input, label);
});
const amountOut = make("output", { for: "swap-amount", class: "slider-value" }, "100 %");
const amount = make("input", { type: "range", id: "swap-amount", min: 0, max: 1, step: 0.01, value: 1, oninput: preview, "aria-describedby": "swap-amount-help" });
const apply = make("button", {
  type: "button", class: "studio-button studio-primary", onclick: () => { send(); Studio.settle(); trigger("apply"); },
}, "Apply");
const discard = make("button", { type: "button", class: "studio-button", onclick: () => { setAll(false); } }, "Discard");
const hint = make("p", { class: "studio-help", "aria-live": "polite" });
root.append(
  make("fieldset", { class: "studio-chips" },
    make("legend", {}, "Parts to take"),
    make("p", { class: "studio-help" }, "Click them on either face, or choose them here."),
    make("div", { class: "studio-chip-row" }, ...chips, all, none)),
  make("fieldset", { class: "studio-chips" },
    make("legend", {}, "What of them"),
    make("div", { class: "studio-chip-row" }, ...groups)),
  make("div", { class: "slider" },
    make("div", { class: "slider-top" }, make("label", { for: "swap-amount" }, "How much"), make("span", { class: "studio-help", id: "swap-amount-help" }, "interpolation of the latent codes"), amountOut),
    make("div", { class: "slider-line" }, make("span", {}, "this face"), amount, make("span", {}, "the other"))),
  make("div", { class: "studio-actions" }, apply, discard, hint),
);

function choose(name, on) {
  chosen = chosen.filter((part) => part !== name);
  if (on) chosen.push(name);
  changed();
}

function setAll(on) {
  chosen = on ? props.parts.map((part) => part.name) : [];
  changed();
}

function changed() {
  for (const chip of chips) {
    const input = chip.querySelector("input");
    input.checked = chosen.includes(input.value);
  }
  Studio.emit("chosen", chosen);
  preview();
}

function send() {
  seq = Studio.nextSeq();
  props.value = { seq, parts: [...chosen], group: root.querySelector("[name=swap-group]:checked").value, amount: Number(amount.value) };
}

function preview() {
  amountOut.textContent = `${Math.round(amount.value * 100)} %`;
  const ready = chosen.length > 0 && Boolean(Studio.other?.image);
  apply.disabled = !ready;
  discard.disabled = chosen.length === 0;
  hint.textContent = ready ? "The large picture shows the mixture." : chosen.length ? "Choose another face first." : "Choose at least one part.";
  waiting = chosen.length > 0 && !ready;
  if (!ready) {
    if (Studio.live) Studio.dropLive();
    return;
  }
  send();
  trigger("preview");
}

Studio.on("toggle", element, (name) => Studio.tab === "swap" && choose(name, !chosen.includes(name)));
Studio.on("other", element, preview);
Studio.on("tab", element, (tab) => tab === "swap" && preview());
Studio.on("face", element, (face) => {
  // Applied: what was taken is part of the face now.
  if (face.seq !== null && face.seq === seq && chosen.length) setAll(false);
  // After an undo, or with another face: the mixture is of the face now on show.
  else if (Studio.tab === "swap") preview();
});
preview();
