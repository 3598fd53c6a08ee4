// What the clients are asked, and what their tools say.
import { z } from "zod";

export const SYSTEM = "You are brief.";
export const QUESTION = "What is the weather, and what is the time, in Tromsø?";
export const RESULTS = { weather: "3 degrees", time: "12:00" };
export const SCHEMA = { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false };
export const FORECAST = z.object({ city: z.string(), days: z.number().int(), kinds: z.array(z.string()) });
export const HELLO = [
  { role: "system", content: SYSTEM },
  { role: "user", content: QUESTION },
];
