// Receives files to save: {name, mime, data (base64)}; shows nothing itself. Nothing is left on the server.
watch("value", () => props.value?.data && Studio.save(props.value.name, props.value.mime, props.value.data));
