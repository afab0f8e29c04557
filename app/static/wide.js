// Receives the whole photo: {face, revision, image, alt}; shows nothing itself, the stage does.
watch("value", () => {
  Studio.wide = props.value;
  Studio.emit("wide", props.value);
});
