// Receives previews; shows nothing itself. A widget of its own, because two answers that arrive within one frame of the
// browser become one change of a widget's value, and a preview must never swallow a committed face.
watch("value", () => Studio.setLive(props.value));
