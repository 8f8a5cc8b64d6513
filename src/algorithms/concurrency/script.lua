-- concurrency: sliding_window with the ttl as its window, and nothing to lease. Stands after that one's script.
--
-- KEYS    one counter, as sliding_window keeps it
-- ARGV    parameters: limit, slice_us, slices
-- Returns a table of functions for check.lua
algorithms[5] = {
  read = algorithms[0].read,
  decide = algorithms[0].decide,
  apply = algorithms[0].apply,
  debit = algorithms[0].debit,
  refund = algorithms[0].refund,
  return_to = algorithms[0].return_to,
  write = algorithms[0].write,
}
