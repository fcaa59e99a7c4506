"""What measurements print. Their rows grow with what is measured; names of columns stay."""

from __future__ import annotations

from scripts.json_keys.form import shape

TRANSFER = shape("""
target            text?     the other process, where it was named
duration          seconds   of each case
warm_up           seconds   before that
verified          flag      whether every byte was compared
mooncake_version  text?     of upstream's wheel, where it ran
rows              [object]  a row for each case
  engine                     text      ours or mooncake
  operation                  text      read, write or mixed
  block_size                 bytes     of one request
  batch_size                 integer   requests at once
  threads                    integer   how many
  yardstick                  text      what it is compared with
  gbps                       GB/s      the median of the rounds
  socket_gbps                GB/s?     of a bare socket
  percent_of_socket          number?   of that
  average_us                 µs        of a batch
  p99_us                     µs        of a batch
  p999_us                    µs        of a batch
  seconds                    seconds   that it took
  batches                    integer   that were moved
  bytes                      bytes     that were moved
  cpu_seconds_per_gb         seconds?  of processor
  socket_cpu_seconds_per_gb  seconds?  of processor, for a bare socket
  rounds_gbps                [GB/s]    each round
  rounds_socket_gbps         [GB/s]    each round
""")

STORE = shape("""
where             text      own or other: whose memory
duration          seconds   of each case
mooncake_version  text?     of upstream's wheel, where it ran
rows              [object]  a row for each case
  engine                  text      ours, ours-tcp or mooncake
  operation               text      put, get or exist
  size                    bytes     of a value
  batch                   integer   keys at once
  threads                 integer   how many
  keys_per_second         number    the median of the rounds
  gbps                    GB/s?     the same in bytes
  ratio                   number?   to upstream's, in the same run
  average_us              µs        of a call
  p50_us                  µs        of a call
  p99_us                  µs        of a call
  rounds_keys_per_second  [number]  each round
""")

GPU = shape("""
bytes              bytes     of the checkpoint
devices            [text]    the GPUs
peers              [any]     groups of GPUs that copy to one another, by number
agents             integer   that serve
transport          text      the way
rounds             integer   of each row
verified           flag      whether every byte was compared
most_pinned_bytes  bytes     at once
rows               [object]  a row for each layout
  layout              text      one, replicate or shard
  devices             integer   how many
  seconds             seconds   the median
  least_seconds       seconds   the least
  most_seconds        seconds   the most
  gbps                GB/s      of the median
  times_one           number?   how long, beside one GPU
  received_times      number?   how often each byte came over the network
  cpu_seconds_per_gb  seconds   of processor
""")

_NODES = """
nodes  [object]  the receivers
  node   text    its name
  equal  flag    whether its copy is
  error  text    what went wrong; empty where nothing did
  *      any     how it went, get by get
"""

BROADCAST = shape("""
receivers                 integer   how many
size                      bytes     of the object
chunks                    integer   how many
rate                      bytes/s?  of each network card, where it was limited
ok                        flag      whether all have it, equal
last                      seconds?  until the last had it
over_copy                 number?   times one copy at that rate
c                         number?   what is over that, in chunk times
bound                     seconds?  the least that is possible
percent_of_bound          number?   of that
busy                      number?   share of the processors that was taken
processor_seconds_per_gb  seconds?  of processor
seed_bytes                bytes     that the seed sent
seed_ratio                number    to the object's size
seed_killed               flag      whether it was
""" + _NODES)  # fmt: skip

DELTA = shape("""
receivers       integer   how many
size            bytes     of the checkpoint
runs            integer   of tensors that changed
changed         bytes     that changed
chunk_size      bytes     of a chunk, at most
chunks          integer   how many
rate            bytes/s?  of each network card, where it was limited
moved           bytes     the most that one receiver pulled
share           number    of the checkpoint
full_seconds    seconds?  until the last had the first version
update_seconds  seconds?  until the last had the second
ok              flag      whether all have it, equal
""" + _NODES)  # fmt: skip

SIMULATE = shape("""
receivers         integer   how many
size              bytes     of the object
chunk_size        bytes     of a chunk
chunks            integer   how many
finished          integer   receivers that have it
unfinished        integer   that have not
died              integer   that were killed
p50               seconds?  until half of them had it
p99               seconds?  until 99 of 100 had it
last              seconds?  until the last had it
over_copy         number?   times one copy
c                 number?   what is over that, in chunk times
bound             seconds?  the least that is possible
percent_of_bound  number?   of that
seed_ratio        number    what the seed sent, to the object's size
sent_bytes        bytes     that all sent
crossed           [number]  share of each link between groups of machines
connections       object    of a machine
  mean  number   on average
  most  integer  at most
events            integer   of the simulation
messages          integer   between machines
wakes             integer   of planners
busy              any       share of the processors, where they are simulated
costs             any       what these are taken to cost
progress          [any]     time, slowest, mean and fastest share
wall_seconds      seconds   that the simulation took
""")

SERVE = shape("""
requests      integer   of the trace
mean_input    number    tokens
mean_output   number    tokens
best_reuse    number    share of tokens that an endless cache would have
objectives    object    of a request
  ttft  seconds  to the first token
  tbt   seconds  between tokens
costs         object    what computing is taken to cost
  *  any  by part
rows          [object]  a row for each policy
  policy             text      which
  admission          text      how requests are refused
  speed              number    of the trace
  prefill            integer   instances
  decode             integer   instances
  requests           integer   of the trace
  finished           integer   of those
  good               integer   within the objectives
  goodput            number    of those a second
  rejected           integer   of those
  rejected_for       object    by why
    *  integer  how many
  rejected_computed  integer   after something had been computed
  ttft               object    seconds: mean, p50, p90, p99
    *  seconds?  each
  tbt                object    seconds: mean, p50, p90, p99
    *  seconds?  each
  hit_rate           number    share of blocks that were there
  prefill_seconds    seconds   that were computed
  wasted_seconds     seconds   of those, for requests that were refused
  missed_seconds     seconds   of those, for requests that missed their objectives
  fetched_blocks     integer   from other instances
  replicas           integer   blocks that were copied
  span               seconds   of the trace
  seconds            seconds   until the last was done
  events             integer   of the simulation
  load               [any]     time, and how busy each instance was
  wall_seconds       seconds   that the simulation took
wall_seconds  seconds   that all took
""")
