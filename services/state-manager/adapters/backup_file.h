// Backup files: the line `tutti-backup 1`, then frames of 4 bytes length (big endian) and a zstd-compressed
// tutti.state.v1.BackupChunk each, a frame of length 0, and the SHA-256 of everything before. Written beside the
// destination and renamed when whole.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "tutti/state/v1/backup.pb.h"

namespace tutti::state_manager {

// `fill` gives the chunks by its sink.
absl::Status WriteBackupFile(
    const std::string& file,
    const std::function<absl::Status(const std::function<absl::Status(const tutti::state::v1::BackupChunk&)>&)>& fill);

// DATA_LOSS: not a backup, or its checksum is wrong; found before `take` sees the first chunk.
absl::Status ReadBackupFile(const std::string& file,
                            const std::function<absl::Status(const tutti::state::v1::BackupChunk&)>& take);

}  // namespace tutti::state_manager
