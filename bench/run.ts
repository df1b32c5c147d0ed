/**
 * `npm run bench -- NAME`: the measurements behind every number in README and docs. Each is self-contained, compares
 * within one run, and leaves JSON, tables and plots in `bench-out/`. Exit codes: 0 measured (targets met or not),
 * 1 failed, 2 usage.
 */
import { runNamed } from './command.ts'

await runNamed('bench', 'Measures IPpriv beside others, in namespaces of this machine.', {
  'vs-tor': () => import('./vs-tor.ts'),
  planes: () => import('./planes.ts'),
  ike: () => import('./ike.ts'),
  flood: () => import('./flood.ts'),
  parallel: () => import('./parallel.ts'),
  kernel: () => import('./kernel.ts'),
  directory: () => import('./directory.ts'),
  costs: () => import('./costs.ts'),
  stress: () => import('./stress.ts'),
  tune: () => import('./tune.ts'),
})
