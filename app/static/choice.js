// Carries the chosen face or square of the photo to the server: {photo, face, crop}. Shows nothing.
Studio.on("photo", element, (choice) => {
  props.value = choice;
});
if (Studio.choice) props.value = Studio.choice;
