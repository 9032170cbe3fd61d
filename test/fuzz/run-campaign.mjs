/*
 * A campaign in a process of its own, to be killed: `node run-campaign.mjs OPTIONS`, JSON of runCampaign's
 * options with a plan. Prints the report.
 */

import process from 'node:process';
import { runCampaign } from '../../dist/fuzz/index.js';

console.log(JSON.stringify(await runCampaign(JSON.parse(process.argv[2]))));
