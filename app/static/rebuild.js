// Photo and reconstruction side by side, with progress. `props.value` is what app/tabs/photo.py calls progress.
const make = Studio.make;
const root = element.querySelector(".panel");
const pictures = [["target", "The photo, aligned"], ["image", "Reconstruction"]].map(([name, label]) =>
  make("figure", {}, make("div", { class: "stage-figure" }, make("img", { alt: "", "data-name": name, hidden: true })), make("figcaption", {}, label)));
const bar = make("div", { class: "progress-fill" });
const track = make("div", { class: "progress", role: "progressbar", "aria-label": "Reconstruction", "aria-valuemin": 0, "aria-valuemax": 100 }, bar);
const words = make("p", { class: "progress-words", role: "status" });
const scores = make("dl", { class: "scores" });
root.append(make("div", { class: "pair" }, ...pictures), track, words, scores);

function render() {
  const now = props.value;
  root.hidden = !now;
  if (!now) return;
  for (const figure of pictures) {
    const image = figure.querySelector("img");
    const source = now[image.dataset.name];
    image.hidden = !source;
    if (source) image.src = source;
    image.alt = source ? figure.querySelector("figcaption").textContent : "";
  }
  const percent = Math.round(100 * now.fraction);
  bar.style.width = `${percent}%`;
  track.setAttribute("aria-valuenow", percent);
  words.textContent = now.words;
  scores.replaceChildren(...now.scores.flatMap(([name, value, help]) => [make("dt", { title: help }, name), make("dd", {}, value)]));
}
watch("value", render);
render();
