"""What commands about the agent, its machine and etcd print."""

from __future__ import annotations

from scripts.json_keys.form import shape
from scripts.json_keys.objects import ERROR, JOB

RUNNING = shape(
    """
name     text      the object's name
dest     text      where it goes: a path, - or memory
step     text      what is being done
unit     text      B, or what else is counted
done     integer   of this step
total    integer   of this step; 0 where nobody knows
percent  number?   of this step
peers    integer   that send now
seconds  seconds   since it began
""",
    "A get that runs",
)

STATUS = shape(
    """
node                text       its name
version             text       of mooncake
metadata            text       what other nodes are given with --metadata
metadata_ok         flag       whether that answers
metadata_fault      object?    why not
control             text       HOST:PORT for what peers ask
rpc                 text       HOST:PORT of the handshake
data                text       HOST:PORT of the data
listen              text       as it was asked for
uptime              seconds    since its start
objects             integer    names that it holds whole
cache_quota         bytes      that replicas may take; 0 is no limit
serving_bytes       bytes      of what it holds whole
bytes_sent          bytes      over TCP since its start
bytes_granted       bytes      that peers on this host were allowed to read since its start
bytes_pulled        bytes      that gets received since its start
bytes_reused        bytes      of gets that did not have to move
receivers           integer    peers that get something from this node, or wait for it
peers               [object]   who sent something to this node lately, the last one first
  node   text   its name
  bytes  bytes  verified, since the start
rdma                text       devices that are used; empty where none is
rdma_reason         text       why none is
rdma_bytes_granted  bytes      that peers were given the keys of
rdma_sessions       integer    peers that are connected over RDMA
gets                integer    that run
gets_waiting        integer    that wait for their turn
running_gets        [object]   those that run or wait, a hundred at most
upload_limit        bytes/s    0 is none
download_limit      bytes/s    0 is none
warnings            [text]     why others may not reach it, and the like
tasks               [object]   what it does in the background
  name          text     which
  owner         text     agent, node, get or engine
  policy        text     what follows when it fails
  state         text     running, restarting or ended
  failures      integer  so far
  last_error    text     the last one
  last_failure  text?    when, like 2026-08-22T10:00:00Z
pid                 integer    of the agent
home                text       where it keeps its things
hf_endpoint         text?      the URL at which it serves programs that read the hub
process             object     what it has from where it was started
  version        text       of mooncake
  user           integer    its user's number
  groups         [integer]  their numbers
  umask          text       in octal
  network        integer?   its network namespace
  open_files     integer?   that it may have
  locked_memory  bytes?     that it may have
jobs                [object]   gets in the background that run
embedded_etcd       flag       whether it runs an etcd of its own
etcd_pid            integer?   of that
metrics             text?      the URL at which Prometheus finds them
superseded?         [object]?  what it holds of earlier versions; node status alone asks
  name      text  the object's name
  manifest  text  what it holds
  path      text  where
""",
    "The document of node status",
    metadata_fault=ERROR,
    running_gets=RUNNING,
    jobs=JOB,
)

STOPPED = shape("""
pid         integer?   of the agent that ended; null where none ran
terminated  flag       whether it took a signal
etcd_pid    integer?   of an etcd that a dead agent had left
jobs        [integer]  those that were cut short
seconds     seconds    that it took
""")

LIMITS = shape("upload bytes/s 0 is none\ndownload bytes/s 0 is none")

LOG = shape("path text of the log\nlines [text] its last ones")
LOG_GROWS = shape("line text the next; these with --follow, after that")

TOP = shape(
    """
node           text      its name
uptime         seconds   since its start
metadata_ok    flag      whether the metadata server answers
objects        integer   names that it holds whole
serving_bytes  bytes     of what it holds whole
receiving      bytes/s   that gets receive
sending        bytes/s   over TCP
granting       bytes/s   that peers on this host were allowed to read
receivers      integer   peers that get something from this node, or wait for it
waiting        integer   gets that wait for their turn
gets           [object]  those that run or wait: as of node status, with
  *    any       what stands there
  rate  bytes/s?  how fast
peers          [object]  who sent something to this node lately, the fastest first
  node   text     its name
  rate   bytes/s  how fast
  bytes  bytes    verified, since the start
"""
)

CONFIG = shape("* any each setting's value, or null")
ORIGINS = shape("""
*  object  each setting
  value   any   what it is
  origin  text  what gave it
""")

DOCTOR = shape("""
ok      flag      whether nothing failed
checks  [object]  in their order
  subject  text     what was looked at
  verdict  text     ok, warning or failed
  detail   text     what was found
  advice   text     what to do; may be empty
  code     integer  the status that it asks for
""")

TOPOLOGY = shape("""
numa       [object]  NUMA nodes
  node       integer  its number
  distances  object   to each, by its number
    *  integer  10 is itself
nics       [object]  network interfaces
  name        text      its name
  up          flag      whether it is
  loopback    flag      whether it is
  speed_mbps  integer?  in Mbit/s
  numa        integer?  its NUMA node
  pci         text      its address; empty where it has none
  mac         text      its hardware address
  mtu         bytes     of a packet
  addresses   [text]    with prefix lengths
rdma       [object]  RDMA devices
  name     text      its name
  active   flag      whether any port carries traffic
  numa     integer?  its NUMA node
  pci      text      its address
  ports    [object]  its ports
    port        integer   its number
    state       text      ACTIVE, DOWN and the like
    link_layer  text      InfiniBand or Ethernet
    speed_mbps  integer?  in Mbit/s
  netdevs  [text]    its network interfaces
gpus       [object]  GPUs
  name    text      cuda:0, hip:0 and the like
  vendor  text      who made it
  numa    integer?  its NUMA node
  pci     text      its address
  nearest_nics  [text]  the network cards that are nearest to it and up
gpu_links  [object]  ways between each two GPUs
  from         text   a GPU's name
  to           text   another's
  peer_access  flag?  whether the one copies to the other by itself, as CUDA says; null where that is not known
  nvlink       flag?  whether by NVLink; null where that is not known
  pci          text?  the way on the PCI bus, PIX to SYS; null where it is not known
matrix     object    for each place in memory, the devices to use and those to fall back to
  *  [any]  two lists of names
""")

_ENTRY = """
key         text      in etcd
lease_left  integer?  seconds until its lease ends; null where it has none
malformed?  text      what is wrong with the value
state?      text      alive, stale or unreachable, where that was judged
why?        text      by what
*           any       what the record itself says
"""

_HELD = _ENTRY + "replicas [object] its replicas, as entries themselves"

_LISTED_ENTRY = shape(_ENTRY, "An entry of etcd")

ETCD = shape(
    """
url        text      of etcd
version    text      of etcd
nodes      [object]  ours
objects    [object]  by name
versions   [object]  earlier ones of them
tags       [object]  tags of these or those
orphans    [object]  replicas of what none of these names
upstream   [object]  records of Mooncake's own programs
unknown    [object]  what is not understood
truncated  flag      whether there were more keys than are read
unprobed   integer   endpoints that were not asked whether they live, since there are too many
""",
    **dict.fromkeys(("nodes", "tags", "orphans", "upstream", "unknown"), _LISTED_ENTRY),
    **dict.fromkeys(("objects", "versions"), shape(_HELD)),
)

COLLECTED = shape("""
url          text      of etcd
dry_run      flag      whether nothing was removed
alive        integer   records that are not stale
stale        [object]  what would be removed
  *  any  which, and why
removed      [object]  what was
  *  any  which, and why
changed      [object]  what changed meanwhile and stays
  *  any  which, and why
unreachable  [object]  what may be dead, or out of reach, and stays
  *  any  which, and why
unknown      [object]  what is not understood and stays
  *  any  which, and why
leased       [object]  what goes when its lease ends
  *  any  which, and why
truncated    flag      whether there were more keys than are read
""")

SERVES = shape("url text at which it answers; the one line of a command that serves until it is ended")
