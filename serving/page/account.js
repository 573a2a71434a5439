// The login form, and the button that opens it or logs out.

import {LOGIN, ask} from "./feed.js";

export class Account {
  #dialog;
  #form;
  #wrong;
  #later;
  #user = null;

  /** @param entered called after a login, @param left after a logout */
  constructor(dialog, button, {entered, left}) {
    Object.assign(this, {button, entered, left});
    this.#dialog = dialog;
    this.#form = dialog.querySelector("form");
    this.#wrong = dialog.querySelector("[role=alert]");
    this.#later = dialog.querySelector("button[type=button]");
    this.#later.addEventListener("click", () => dialog.close());
    // If the server requires a login, the page behind the form is empty.
    dialog.addEventListener("cancel", (event) => this.#later.hidden && event.preventDefault());
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#enter();
    });
    button.addEventListener("click", () => (this.#user ? this.#leave() : this.#show(true)));
  }

  /** Show the form; it cannot be closed. */
  want() {
    this.button.hidden = true;
    this.#show(false);
  }

  #show(mayBeLeft) {
    this.#later.hidden = !mayBeLeft;
    if (this.#dialog.open) return;
    this.#wrong.textContent = "";
    this.#dialog.showModal();
  }

  /** Show the user on the button, and return it; null without a login. */
  async look() {
    const me = await ask("/api/v1/me");
    this.#user = me.user;
    this.button.hidden = !me.user && !me.has_accounts;
    this.button.textContent = me.user ? "Log out" : "Log in";
    this.button.title = me.user ? `Logged in as ${me.user} (${me.role})` : "";
    return me.user;
  }

  async #enter() {
    const [name, password] = ["name", "password"].map((one) => this.#form.elements[one]);
    const submit = this.#form.querySelector("button");
    submit.disabled = true;
    this.#wrong.textContent = "";
    try {
      await ask(LOGIN, {}, {method: "POST", headers: {"content-type": "application/json"},
        body: JSON.stringify({name: name.value, password: password.value})});
      this.#dialog.close();
      this.#form.reset();
      this.entered();
    } catch (error) {
      this.#wrong.textContent = error.status === 401 ? "Name or password is wrong." : error.message;
      password.select();
    } finally {
      submit.disabled = false;
    }
  }

  async #leave() {
    await ask("/api/v1/logout", {}, {method: "POST"});
    this.left();
  }
}
