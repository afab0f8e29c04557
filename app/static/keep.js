// Keeps the face of this page in the browser; shows nothing itself.
watch("value", () => Studio.keep(props.value));
Studio.on("refresh", element, () => trigger("refresh"));
// A page that was loaded again goes back to the job that it was following.
let first = true;
Studio.on("face", element, (face) => {
  if (first && face.n > 0 && face.job) Studio.goTo(face.job);
  if (face.n > 0) first = false;
});
