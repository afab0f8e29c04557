// Carries what was chosen in another widget to the server: the latest `Studio.choose(props.topic, …)`. Shows nothing.
Studio.on(props.topic, element, (choice) => {
  props.value = choice;
});
if (props.topic in Studio.choices) props.value = Studio.choices[props.topic];
