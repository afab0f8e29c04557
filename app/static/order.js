// The order in which parts are added. `props.value` is the list of part names; parts can be moved and left out.
const make = Studio.make;
const root = element.querySelector(".panel");
const names = props.parts.map((part) => part.name);
let order = [...(props.value?.length ? props.value : names)];
const list = make("ol", { class: "order-list", "aria-label": "Order of the parts" });
const news = make("p", { class: "studio-hidden", "aria-live": "polite" });
const actions = make(
  "div", { class: "studio-actions" },
  make("button", { type: "button", class: "studio-small", onclick: () => set([...names]) }, "As the model thinks"),
  make("button", { type: "button", class: "studio-small", onclick: () => set([...order].reverse()) }, "Reverse"),
);
root.append(actions, list, news);

function set(next, focus) {
  order = next;
  render();
  if (focus) list.querySelector(focus)?.focus();
  props.value = [...order];
  trigger("reorder");
}

function move(name, by) {
  const from = order.indexOf(name);
  const to = from + by;
  if (to < 0 || to >= order.length) return;
  const next = order.filter((part) => part !== name);
  next.splice(to, 0, name);
  const label = props.parts.find((part) => part.name === name).label;
  news.textContent = `${label} is now number ${to + 1} of ${order.length}`;
  const still = to > 0 && to < order.length - 1 ? by : -by;
  set(next, `[data-part="${name}"] [data-by="${still}"]`);
}

function render() {
  const left = names.filter((name) => !order.includes(name));
  list.replaceChildren(...[...order, ...left].map((name, index) => {
    const part = props.parts.find((item) => item.name === name);
    const inside = index < order.length;
    const box = make("input", {
      type: "checkbox", checked: inside, "aria-label": `Add ${part.label.toLowerCase()}`,
      onchange: (event) => {
        if (!event.target.checked && order.length === 1) event.target.checked = true; // an empty face has no frames
        else set(event.target.checked ? [...order, name] : order.filter((other) => other !== name), `[data-part="${name}"] input`);
      },
    });
    const dot = make("span", { class: "studio-dot", "aria-hidden": "true" });
    dot.style.backgroundColor = `rgb(${part.color.join(",")})`;
    const arrow = (by, text) => make("button", {
      type: "button", class: "studio-small", "data-by": by, disabled: !inside || index + by < 0 || index + by >= order.length,
      "aria-label": `${part.label} ${by < 0 ? "earlier" : "later"}`, onclick: () => move(name, by),
    }, text);
    const item = make("li", { "data-part": name, draggable: inside ? "true" : false, class: inside ? "" : "order-out" },
      make("label", {}, box, dot, part.label), arrow(-1, "↑"), arrow(1, "↓"));
    item.addEventListener("dragstart", (event) => event.dataTransfer.setData("text/plain", name));
    item.addEventListener("dragover", (event) => event.preventDefault());
    item.addEventListener("drop", (event) => {
      event.preventDefault();
      const from = event.dataTransfer.getData("text/plain");
      if (order.includes(from) && inside && from !== name) {
        const target = order.indexOf(name);
        const next = order.filter((other) => other !== from);
        next.splice(target, 0, from);
        set(next);
      }
    });
    return item;
  }));
}
watch("value", () => {
  if (props.value?.length) {
    order = [...props.value];
    render();
  }
});
render();
