-- leaky_bucket: token_bucket's arithmetic with a wait (its fourth parameter is 1), and nothing to lease. Stands after
-- that one's script.
--
-- KEYS    one counter, as token_bucket keeps it
-- ARGV    parameters: capacity, hit_units, unit_rate, hold
-- Returns a table of functions for check.lua
algorithms[3] = {
  read = algorithms[2].read,
  decide = algorithms[2].decide,
  apply = algorithms[2].apply,
  debit = algorithms[2].debit,
  refund = algorithms[2].refund,
  return_to = algorithms[2].return_to,
  write = algorithms[2].write,
}
