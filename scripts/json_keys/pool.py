"""What commands about a pooled store, and about serving, print."""

from __future__ import annotations

from scripts.json_keys.form import shape

MASTER = shape("""
address  text   HOST:PORT for clients
metrics  text   HOST:PORT of its metrics
allow    text?  who may call it, where that is limited
state    text?  the directory of its journal
keys     integer  that it began with
""")

GIVEN = shape("endpoint text HOST:PORT of the memory\nsize bytes of it\nmaster text HOST:PORT of the master")
PUT = shape("key text the key\nsize bytes of the value\nreplicas integer that were written")
VALUE = shape("key text the key\nsize bytes of the value\nfile text where it is now")
REMOVED = shape("removed [text] the keys that went")

STATUS = shape("""
version        text      of the master
address        text      HOST:PORT for clients
up             seconds   since its start
role           text      leader
state          text      serving, or what it does before that
ready          flag      whether it serves
numbers        object    its metrics, by the names that upstream gives them without "master_"
  *  any  an integer, mostly
calls          object    by call
  *  [integer]  how many came, and how many failed
unknown_calls  object    calls that are not known, by number
  *  any  how many
segments       [object]  memory that was given, as upstream shows it
  segment_name              text      its name
  segment_id                text      its number
  client_id                 text      who gave it
  base_address              text      in hexadecimal
  size_bytes                bytes     of it
  size_human                text      the same, in GiB
  te_endpoint               text      HOST:PORT
  protocol                  text      tcp or rdma
  status                    text      OK, or what it is
  allocator_used_bytes      bytes     that are taken
  allocator_capacity_bytes  bytes     that there are
  allocator_usage_percent   number    of that
  silent                    seconds?  since its client was heard of
clients        [object]  who calls
  address        text      its host
  version        text      its release, as far as its calls show
  connected      integer   connections now
  connections    integer   in all
  last_ago       seconds?  since its last call
  calls          integer   in all
  failures       object    by what came of them
    *  any  how many
  unknown_calls  object    by number
    *  any  how many
  malformed      integer   calls that made no sense
  turned_away    object    by why
    *  any  how many
  lookups        integer   keys that it asked for
  found          integer   of those that were there
  tenants        [text]    that it named
""")

LISTED = shape("""
keys  [object]  in their order
  key       text     the key
  tenant    text     whose
  size      bytes    of the value
  replicas  integer  how many
  complete  flag     whether it can be read
""")

INFO = shape("""
key         text      the key
tenant      text      whose
size        bytes     of the value
leased_for  seconds?  for which it is not evicted
replicas    [object]  where it lies
  id        integer  its number
  kind      text     memory, disk or the like
  status    integer  upstream's number; 3 can be read
  size      bytes    of it
  *         any      where: address, protocol and endpoint of memory
""")

WHY = shape("""
findings  [object]  the gravest first
  cause   text  one word for it
  text    text  the sentence
  advice  text  what to do; may be empty
  good    flag  whether it is no trouble
""")

TOP = shape("""
puts     number   a second
lookups  number   keys a second
reads    number   keys a second
hits     number?  share of the keys that were asked for and were there; null where none was asked for
evicted  number   keys a second
keys     integer  now
used     bytes    now
size     bytes    of the pool
clients  integer  that give memory
""")

ENGINE_FILES = shape("""
cache_prefix  text    what its keys begin with
files         [text]  that were written
commands      [text]  that start it
""")
