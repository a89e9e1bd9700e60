// Logical export and import of everything that is stored, the same for every engine: a backup of one restores into
// another.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "services/state-manager/ports/database.h"
#include "tutti/state/v1/backup.pb.h"

namespace tutti::state_manager {

namespace v1 = tutti::state::v1;

using ChunkSink = std::function<absl::Status(const v1::BackupChunk&)>;

// How many rows each table has given.
using RowCounts = std::map<std::string, int64_t>;

// Sends all rows, table by table, as one snapshot sees them: the transaction must be a snapshot read. Leases are not
// among them: who worked on a run when it was saved does not when it is restored.
absl::StatusOr<RowCounts> ExportAll(Transaction& tx, const ChunkSink& sink);
// FAILED_PRECONDITION: something is stored. With `replace` it is removed first.
absl::Status PrepareImport(Transaction& tx, bool replace);
absl::Status ImportChunk(Transaction& tx, const v1::BackupChunk& chunk);
// After the last chunk: numbering goes on after what was imported, and open runs wait for a new owner under a new
// epoch.
absl::Status FinishImport(Transaction& tx);
absl::StatusOr<RowCounts> CountRows(Transaction& tx);

}  // namespace tutti::state_manager
