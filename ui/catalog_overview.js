// Triggers "look".
(modiste.parts ??= {}).overview = { look: () => trigger("look") };
