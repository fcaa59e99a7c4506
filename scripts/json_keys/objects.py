"""What commands about objects print."""

from __future__ import annotations

from scripts.json_keys.form import Shape, shape

ERROR = shape(
    """
type       text     the class, as in [errors.md](errors.md)
fields     object   what its sentence is made of
message    text     the sentence
advice     text     what to do, or to run next; may be empty
exit_code  integer  the status, for this alone
""",
    "An error",
)

FAILED = shape("name text which\nerror object why", error=ERROR)

TAGGED = shape("tag text the tag\nbefore text the digest that it led to before; empty where it is new")

RECORD = shape("""
name        text     the object's name
manifest    text     the digest of its manifest: what it is that has the name
size        bytes    of all its files
chunk_size  bytes    of a chunk, at most
chunks      integer  how many
files       integer  how many
""")

MADE = shape("kind text file, directory or memory\nhash text that of its chunks") | shape("""
creator  text  the node that registered it
created  time  when
""")

REGISTERED = RECORD | shape("tags [object] the tags that it was given", tags=TAGGED)

SEVERAL_REGISTERED = shape(
    """
objects  [object]  what was registered
failed   [object]  what was not
size     bytes     in all
seconds  seconds   that it took
""",
    objects=REGISTERED,
    failed=shape("path text which\nname text what it was to be called\nerror object why", error=ERROR),
)

HOLDERS = shape("node text its name\nstate text complete or partial")

LISTED = (
    RECORD
    | MADE
    | shape("""
supersedes  text     the digest of the version before; empty where there is none
complete    integer  live nodes that have all of it
partial     integer  live nodes that have a part
superseded  integer  earlier versions that somebody still holds
here        [text]   where it lies on this node, or "memory"
""")
)

INFO = shape(
    """
name        text      the object's name
here        [object]  where it lies on this node
  role  text  gold, kept, replica or part
  path  text  where
manifest    text      the digest of its manifest
size        bytes     of all its files
chunk_size  bytes     of a chunk, at most
chunks      integer   how many
hash        text      that of its chunks
kind        text      file, directory or memory
creator     text      the node that registered it
created     time      when
tags        [text]    its tags
current     text      the digest that the name stands for; empty where it stands for none
superseded  flag      whether that is another version
older       [object]  earlier versions that somebody still holds
  manifest  text      the digest
  created   time      when it was registered
  tags      [text]    its tags
  holders   [object]  who has it
files       [object]?  its files; null where no holder sends the manifest
  path    text     in the object; empty of an object that is one file
  size    bytes    of it
  mode    integer  permission bits
  chunks  integer  that have any of it
replicas    [object]  the nodes that have any of it
  node       text     its name
  state      text     complete or partial
  role       text     gold where it was registered, else replica
  chunks     integer  that it has
  of         integer  chunks that there are
  address    text     its control port
  reachable  flag     whether it answered
banned      [object]  peers that sent this node wrong bytes of it
  node   text     its name
  chunk  integer  the last that was wrong
""",
    "The document of info",
    holders=HOLDERS,
)

HISTORY = shape(
    """
name      text      the object's name
versions  [object]  the newest first
""",
    versions=RECORD.without("name", "files") | MADE | shape("""
files       integer   how many
tags        [text]    its tags
current     flag      whether the name stands for it
superseded  flag      whether the name stands for another
holders     [object]  live nodes that have any of it
""", holders=HOLDERS),
)  # fmt: skip

TAGS = shape(
    "tags [object] tags of the object, or of all",
    tags=RECORD | MADE | shape("""
tag       text     the tag
by        text     the node that gave it
moved     time     when
complete  integer  live nodes that have all of that version
partial   integer  live nodes that have a part
"""),
)  # fmt: skip

WATCHED = shape("""
reference  text   NAME@sha256:DIGEST
name       text   the object's name
tag        text   the tag that is watched; empty where the name is
manifest   text   the digest of the new version
previous   text   that of the one before; empty where there was none
size       bytes    of all its files
files      integer  how many
creator    text     the node that registered it
created    time     when
""")

GOT = shape(
    """
name          text      the object's name
manifest      text      the digest of its manifest
dest          text      where it is now; "-" is standard output
size          bytes     of it; of a part those of its files
bytes_pulled  bytes     that came from peers
bytes_reused  bytes     that were here
seconds       seconds   that it took
transport     text      tcp, rdma, local, or several joined by commas; empty where nothing was pulled
peers         object    verified bytes by node
  *  bytes  of that node
seeding       flag      whether this node serves it now
dry_run       flag      whether nothing was done
tensors       integer?  how many, where some were asked for
files         integer?  how many, where not all of it was asked for
replaced      text      the digest of the version that lay there before; empty where none did
""",
    "The document of get",
)

VERIFIED = shape(
    """
name         text      the object's name
path         text      where it lies
manifest     text      the digest of its manifest
size         bytes     of all its files
chunks       integer   that were hashed
bad          [object]  what differs
  file    text      in the object
  chunk   integer?  its number; null of bytes that belong to none
  offset  bytes     where it begins in the file
  length  bytes     of it
  reason  text      how it differs
ok           flag      whether nothing does
seconds      seconds   that it took
replaced_by  text      who gave the name to other content; empty where nobody did
superseded   flag      whether the name stands for another version
""",
    "The document of verify",
)

WITHDRAWN = shape(
    """
name         text      the object's name
manifest     text      what was withdrawn
withdrawn    [object]  what this node had
  role  text  gold, kept, replica or part
  path  text  where
deleted      [object]  what --delete deleted
  path   text     where
  files  integer  how many
  bytes  bytes    of them
removed      flag?     whether the name is free now; null where that is not known yet
pending      text      why the metadata server has not been told yet; empty where it has
replaced_by  text      who gave the name to other content; empty where nobody did
tags         [text]    tags that lead to it and that nobody serves any more
""",
    "The document of unregister",
)

JOB = shape(
    """
id         integer   its number
name       text      the object's name, as it was asked for
dest       text      where it goes
state      text      running, done, failed, cancelled or interrupted
began      time      when
ended      time?     when; null while it runs
progress   object    the last that is known; empty before anything is
  step?   text     what is being done
  unit?   text     B, or what else is counted; empty where nothing is
  done?   integer  of this step
  total?  integer  of this step; 0 where nobody knows
  peers?  integer  that send now
notes      [text]    what was said on the way
asked      object    how it was asked for
  transport  text      auto, or a way
  peers      [text]    that were named
  seed       flag      whether it is served afterwards
  force      flag      as the option
  wipe       flag      as the option
  update     flag      as the option
  tensors    [text]    patterns
  include    [text]    patterns
  exclude    [text]    patterns
  range      any?      first and last byte
  wait       any       seconds, or "for-ever"
  retries    integer   as the option
  timeout    seconds?  as the option
result     object?   where it is done
error      object?   where it failed
exit_code  integer?  its status; null while it runs
""",
    "A job",
    result=GOT,
    error=ERROR,
)

COPY = shape(
    """
name      text     the object's name
place     text     where it lies
manifest  text     the digest of its manifest
role      text     gold, kept, replica or part
size      bytes    of it
files     integer  how many
since     time?    when it came
used      time?    when a peer or a get used it last
pinned    flag     whether it stays
written   flag     whether this agent wrote its files
stays     text     why it is never deleted by itself; empty where it may be
""",
    "A copy on this node",
)

KEPT = Shape({**COPY.keys, **shape("error object why", error=ERROR).keys})

QUOTA = shape("""
quota  object?  null where there is none
  bytes  bytes   that replicas may take
  high   number  the share above which some go
  low    number  the share that is taken then
  taken  bytes   that they take now
""")

DU = shape("""
roles  object  by role, those that there are
  *  object  of that role
    copies  integer  how many
    bytes   bytes    in all
total  object  of all roles
  copies  integer  how many
  bytes   bytes    in all
""")

PRUNED = shape(
    """
deleted  [object]  what went, or would go
kept     [object]  what was asked for and stays
bytes    bytes     that went, or would go
dry_run  flag      whether nothing was done
""",
    deleted=COPY,
    kept=KEPT,
)
