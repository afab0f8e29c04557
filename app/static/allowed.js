// Which parts a description may change. `props.value` is {shown, helpers, layers}: names of the parts that the words are
// about, of those that help them to change, and in which layers; they count as long as no part is chosen. What is chosen
// travels in a widget of its own (choice.js), because answers come while one types.
const make = Studio.make;
const root = element.querySelector(".panel");
let chosen = [];
const chips = Studio.chips(props.parts, { many: true, name: "allowed-part", onchange: (name, on) => choose(name, on) });
const none = make("button", { type: "button", class: "studio-small", onclick: () => set([]) }, "Let the words decide");
const hint = make("p", { class: "studio-help", "aria-live": "polite" });
root.append(
  make("fieldset", { class: "studio-chips", disabled: props.disabled },
    make("legend", {}, "Parts that may change"),
    hint,
    make("div", { class: "studio-chip-row" }, ...chips, none)),
);
const label = (name) => props.parts.find((part) => part.name === name)?.label.toLowerCase() ?? name;
const list = (names) => names.map(label).join(", ").replace(/, ([^,]*)$/, " and $1");

function set(names) {
  chosen = names;
  Studio.choose("allowed", { parts: chosen });
  render();
}

function choose(name, on) {
  set([...chosen.filter((part) => part !== name), ...(on ? [name] : [])]);
}

function render() {
  const { shown = [], helpers = [], layers = "all" } = props.value ?? {};
  const suggested = [...shown, ...helpers];
  const only = layers === "all" ? "" : ` (${layers} only)`;
  const help = helpers.length ? `, with the help of ${list(helpers)}` : "";
  for (const chip of chips) {
    const input = chip.querySelector("input");
    input.checked = chosen.includes(input.value);
    chip.classList.toggle("studio-chip-hint", !chosen.length && suggested.includes(input.value));
  }
  none.disabled = !chosen.length;
  if (props.disabled) return;
  hint.textContent = chosen.length
    ? "All other parts stay as they are."
    : suggested.length
      ? `None is chosen, so the words decide: ${list(shown)}${only}${help}.`
      : "None is chosen, so the words decide. Click parts on the face, or choose them here.";
}

Studio.on("toggle", element, (name) => {
  if (Studio.tab === "describe" && !props.disabled) choose(name, !chosen.includes(name));
});
watch("value", render);
render();
