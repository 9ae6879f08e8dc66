#!/usr/bin/env node
/** The program cnm-cni, as CNI runtimes call it: by its bare name in one of the folders of CNI_PATH. */
import { callPlugin, readAll } from './plugin'

void callPlugin(process.env, () => readAll(process.stdin)).then(({ out, code }) => {
  process.exitCode = code
  process.stdout.write(out)
})
