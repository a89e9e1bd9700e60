// Everything that is stored, over one database.
#pragma once

#include <memory>

#include "services/state-manager/domain/extractive_summarizer.h"
#include "services/state-manager/domain/ngram_embedder.h"
#include "services/state-manager/store/audit.h"
#include "services/state-manager/store/contexts.h"
#include "services/state-manager/store/conversations.h"
#include "services/state-manager/store/deliveries.h"
#include "services/state-manager/store/journal.h"
#include "services/state-manager/store/key_ring.h"
#include "services/state-manager/store/leases.h"
#include "services/state-manager/store/ledger.h"
#include "services/state-manager/store/memories.h"
#include "services/state-manager/store/outbox.h"
#include "services/state-manager/store/reencryption.h"
#include "services/state-manager/store/run_control.h"
#include "services/state-manager/store/runs.h"
#include "services/state-manager/store/schedules.h"
#include "services/state-manager/store/sessions.h"
#include "services/state-manager/store/step_cache.h"
#include "services/state-manager/store/workflows.h"

namespace tutti::state_manager {

struct StateStore {
  struct Options {
    Keys keys;
    int64_t snapshot_every = 1000;
    size_t shards = 1;  // how many databases
    Memories::Options memory;
  };
  StateStore(Options options, IdSource& ids)
      : keys(std::move(options.keys)),
        outbox(ids, options.shards),
        journal(payloads, ledger, outbox, runs, options.snapshot_every),
        contexts(payloads, ids),
        memories(payloads, embedder, ids, options.memory),
        conversations(payloads, summarizer, ids),
        sessions(ids, SecretBytes) {}

  KeyRing keys;
  CellCodec codec{keys};
  Reencryption reencryption{codec, keys};
  Payloads payloads{codec};
  Ledger ledger;
  AuditLog audit;
  Outbox outbox;
  Runs runs{payloads, outbox};
  Journal journal;
  RunControl control{payloads, runs, journal, outbox};
  Deliveries deliveries{ledger, audit, control};
  Leases leases{runs};
  StepCache step_cache{payloads};
  Workflows workflows{payloads};
  Schedules schedules{payloads};
  Contexts contexts;
  NgramEmbedder embedder;
  Memories memories;
  ExtractiveSummarizer summarizer;
  Conversations conversations;
  Sessions sessions;
};

// The database was written with the keys given: each that ever was active has left a cell that it alone opens. Notes
// the active one. FAILED_PRECONDITION: a key is wrong, missing, or none were given for an encrypted database.
absl::Status CheckKeys(Transaction& tx, const KeyRing& keys);

}  // namespace tutti::state_manager
