// Small pictures to choose from. `props.value` is {items: [{image, label, alt, note}], chosen}.
const make = Studio.make;
const root = element.querySelector(".grid");
const list = make("ul", { class: "grid-list" });
const empty = make("p", { class: "studio-empty" }, props.empty);
root.append(list, empty);
root.setAttribute("aria-label", props.label_text);
if (props.columns) root.style.setProperty("--columns", props.columns);
if (props.strip) root.classList.add("grid-strip");

function render() {
  const { items = [], chosen = null } = props.value ?? {};
  empty.hidden = items.length > 0;
  list.hidden = items.length === 0;
  list.replaceChildren(...items.map((item, index) => make(
    "li", {},
    make(
      "button", {
        type: "button", class: "grid-item", "aria-pressed": String(index === chosen), title: item.title ?? item.label,
        onclick: () => { Studio.settle(); trigger("pick", { index }); },
      },
      make("img", { src: item.image, alt: item.alt, draggable: "false" }),
      make("span", { class: "grid-label" }, item.label),
      item.note ? make("span", { class: "grid-note" }, item.note) : null,
    ),
  )));
  const item = list.children[chosen];
  // Not scrollIntoView, which would scroll the page as well.
  if (props.strip && item) list.scrollLeft = item.offsetLeft - list.clientWidth / 2;
}
watch("value", render);
render();
