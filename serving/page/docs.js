// Every request of the REST API, from its OpenAPI description; "Try it out" sends it to this server.

window.ui = SwaggerUIBundle({
  url: "/api/v1/openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  docExpansion: "list",
  tryItOutEnabled: true,
  validatorUrl: null,  // no request to another site
});
