/**
 * `npm run sim -- NAME`: what cannot be measured on one machine is simulated, with the very code that chooses. Leaves
 * JSON, tables and plots in `bench-out/`. Exit codes: 0 simulated, 1 failed, 2 usage.
 */
import { runNamed } from '../bench/command.ts'

await runNamed('sim', 'Simulates whole networks of nodes and clients.', {
  paths: () => import('./paths.ts'),
})
