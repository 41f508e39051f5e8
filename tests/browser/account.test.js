// Signing up, in and out.

import assert from "node:assert/strict";

import { reads, scene } from "./helpers.js";

const PASSWORD = "a horse and a battery";

const account = (page, name) => page.getByRole("button", { name: `Account of ${name}` });

async function fill(page, fields) {
  for (const [label, value] of Object.entries(fields)) await page.getByLabel(label).fill(value);
}

async function signUp(page, fields) {
  await page.getByRole("button", { name: "New account" }).click();
  await fill(page, fields);
  await page.getByRole("button", { name: "Create account" }).click();
}

async function signOut(page, name) {
  await account(page, name).click();
  await page.getByRole("dialog").getByRole("button", { name: "Sign out" }).click();
  await page.getByRole("heading", { name: "Play together, right now" }).waitFor();
}

async function signIn(page, password) {
  await page.getByRole("button", { name: "Sign in" }).first().click();
  await fill(page, { "User name": "ann", Password: password });
  await page.locator("form").getByRole("button", { name: "Sign in" }).click();
}

scene("sign up, sign out, sign in", async (stage) => {
  const page = await stage.window();
  await signUp(page, { "User name": "ann", Password: PASSWORD, "Shown name": "Ann" });
  await account(page, "Ann").waitFor();
  await page.reload();
  await signOut(page, "Ann");
  await page.reload();
  await page.getByRole("heading", { name: "Play together, right now" }).waitFor();

  stage.allow(/status of 401/);
  await signIn(page, "not her password");
  await page.getByRole("alert").filter({ hasText: /\w/ }).waitFor();
  await signIn(page, PASSWORD);
  await account(page, "Ann").click();
  await page.getByRole("heading", { name: "Signed in as ann" }).waitFor();
  await fill(page.getByRole("dialog"), { "Shown name": "Ann the Great" });
  await page.getByRole("button", { name: "Change name" }).click();
  await account(page, "Ann the Great").waitFor();
});

scene("one who stays signed in is so in all windows, and signs out of all", async (stage) => {
  const page = await stage.window();
  await page.getByRole("button", { name: "New account" }).click();
  await page.getByLabel("Stay signed in").check();
  await fill(page, { "User name": "ann", Password: PASSWORD });
  await page.getByRole("button", { name: "Create account" }).click();
  await account(page, "ann").waitFor();
  const other = await page.context().newPage();
  await other.goto(stage.server.origin);
  await account(other, "ann").waitFor();
  await signOut(page, "ann");
  await other.getByRole("heading", { name: "Play together, right now" }).waitFor();
});

scene("a guest becomes a user", async (stage) => {
  const page = await stage.guest("Ann");
  await account(page, "Ann").click();
  await page.getByRole("heading", { name: "You play as a guest" }).waitFor();
  await fill(page, { "User name": "ann", Password: PASSWORD });
  await page.getByRole("button", { name: "Keep this account" }).click();
  await reads(page.locator("#toasts"), "The account is yours");
  await signOut(page, "Ann");
  await signIn(page, PASSWORD);
  await account(page, "Ann").waitFor();
});

scene("what is wrong stands beside the field", async (stage) => {
  stage.allow(/status of (409|422)/);
  const ann = await stage.window();
  await signUp(ann, { "User name": "ann", Password: PASSWORD });
  await account(ann, "ann").waitFor();

  const page = await stage.window();
  const field = (label) => page.locator("label").filter({ hasText: label });
  await signUp(page, { "User name": "Ann", Password: PASSWORD });
  await reads(field("User name").locator(".wrong"), "taken");
  const name = page.getByLabel("User name");
  assert.equal(await name.getAttribute("aria-invalid"), "true");
  assert.ok(await name.evaluate((input) => input === document.activeElement));

  await fill(page, { "User name": "ben", Password: "short" });
  await page.getByRole("button", { name: "Create account" }).click();
  await reads(field("Password").locator(".wrong"), "8 to 256 characters");
  assert.equal(await name.getAttribute("aria-invalid"), null);
  await fill(page, { Password: PASSWORD });
  await page.getByRole("button", { name: "Create account" }).click();
  await account(page, "ben").waitFor();
});
