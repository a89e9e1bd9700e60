#include "services/state-manager/adapters/sqlite_wal_vfs.h"

#include <sqlite3.h>

#include <algorithm>
#include <new>
#include <string>

namespace tutti::state_manager {
namespace {

constexpr size_t kMostGathered = size_t{1} << 20;
// What SQLite's own VFS takes at once is less than 128 KiB (the rest of it is silently cut off).
constexpr size_t kMostWritten = size_t{64} << 10;

// A log that is open. Used by one connection, hence by one thread at a time.
struct WalFile {
  sqlite3_file base;  // what SQLite sees; must be first
  sqlite3_file* real;
  // Follows what is in the file, from `begin` on.
  std::string* gathered;
  sqlite3_int64 begin;
  // From here on the file has not what SQLite believes it wrote: it was told of the failure by a read. -1: nowhere.
  sqlite3_int64 lost;
};

WalFile& Of(sqlite3_file* file) { return *reinterpret_cast<WalFile*>(file); }

// In a write or a sync an error undoes the transaction that was to be written; elsewhere see FlushBefore.
int Flush(WalFile& wal) {
  int result = SQLITE_OK;
  for (size_t at = 0; at < wal.gathered->size() && result == SQLITE_OK; at += kMostWritten) {
    size_t size = std::min(kMostWritten, wal.gathered->size() - at);
    result = wal.real->pMethods->xWrite(wal.real, wal.gathered->data() + at, static_cast<int>(size),
                                        wal.begin + static_cast<sqlite3_int64>(at));
  }
  wal.gathered->clear();
  return result;
}

// Before something that is no writing, whose failure SQLite may take for its own only: nothing is written past the hole
// until SQLite has begun again at or before it.
int FlushBefore(WalFile& wal) {
  int flushed = Flush(wal);
  if (flushed != SQLITE_OK && wal.lost < 0) wal.lost = wal.begin;
  return flushed;
}

int Close(sqlite3_file* file) {
  WalFile& wal = Of(file);
  int flushed = Flush(wal);
  int closed = wal.real->pMethods->xClose(wal.real);
  delete wal.gathered;
  wal.gathered = nullptr;
  return flushed != SQLITE_OK ? flushed : closed;
}

int Read(sqlite3_file* file, void* out, int size, sqlite3_int64 offset) {
  WalFile& wal = Of(file);
  int flushed = FlushBefore(wal);
  return flushed != SQLITE_OK ? flushed : wal.real->pMethods->xRead(wal.real, out, size, offset);
}

int DeviceCharacteristics(sqlite3_file* file) { return Of(file).real->pMethods->xDeviceCharacteristics(Of(file).real); }

int Write(sqlite3_file* file, const void* data, int size, sqlite3_int64 offset) {
  WalFile& wal = Of(file);
  // Else SQLite fills the last sector after the sync, with a page that readers then read.
  if ((DeviceCharacteristics(file) & SQLITE_IOCAP_POWERSAFE_OVERWRITE) == 0) {
    return wal.real->pMethods->xWrite(wal.real, data, size, offset);
  }
  if (wal.lost >= 0 && offset > wal.lost) return SQLITE_IOERR_WRITE;
  wal.lost = -1;
  const auto end = wal.begin + static_cast<sqlite3_int64>(wal.gathered->size());
  if (offset == wal.begin && offset != end) {
    wal.gathered->clear();  // of a transaction that was undone: what comes now takes its place
  } else if (offset != end || wal.gathered->size() + static_cast<size_t>(size) > kMostGathered) {
    if (int flushed = Flush(wal); flushed != SQLITE_OK) return flushed;
  }
  if (wal.gathered->empty()) wal.begin = offset;
  try {
    wal.gathered->append(static_cast<const char*>(data), static_cast<size_t>(size));
  } catch (const std::bad_alloc&) {
    return SQLITE_IOERR_NOMEM;
  }
  return SQLITE_OK;
}

int Truncate(sqlite3_file* file, sqlite3_int64 size) {
  WalFile& wal = Of(file);
  int flushed = FlushBefore(wal);
  return flushed != SQLITE_OK ? flushed : wal.real->pMethods->xTruncate(wal.real, size);
}

int Sync(sqlite3_file* file, int flags) {
  WalFile& wal = Of(file);
  if (wal.lost >= 0) return SQLITE_IOERR_FSYNC;
  int flushed = Flush(wal);
  return flushed != SQLITE_OK ? flushed : wal.real->pMethods->xSync(wal.real, flags);
}

int FileSize(sqlite3_file* file, sqlite3_int64* size) {
  WalFile& wal = Of(file);
  int flushed = FlushBefore(wal);
  return flushed != SQLITE_OK ? flushed : wal.real->pMethods->xFileSize(wal.real, size);
}

int Lock(sqlite3_file* file, int level) { return Of(file).real->pMethods->xLock(Of(file).real, level); }
int Unlock(sqlite3_file* file, int level) { return Of(file).real->pMethods->xUnlock(Of(file).real, level); }
int CheckReservedLock(sqlite3_file* file, int* out) {
  return Of(file).real->pMethods->xCheckReservedLock(Of(file).real, out);
}
int FileControl(sqlite3_file* file, int op, void* arg) {
  return Of(file).real->pMethods->xFileControl(Of(file).real, op, arg);
}
int SectorSize(sqlite3_file* file) { return Of(file).real->pMethods->xSectorSize(Of(file).real); }

const sqlite3_io_methods kWalMethods = {
    .iVersion = 1,
    .xClose = Close,
    .xRead = Read,
    .xWrite = Write,
    .xTruncate = Truncate,
    .xSync = Sync,
    .xFileSize = FileSize,
    .xLock = Lock,
    .xUnlock = Unlock,
    .xCheckReservedLock = CheckReservedLock,
    .xFileControl = FileControl,
    .xSectorSize = SectorSize,
    .xDeviceCharacteristics = DeviceCharacteristics,
    .xShmMap = nullptr,
    .xShmLock = nullptr,
    .xShmBarrier = nullptr,
    .xShmUnmap = nullptr,
    .xFetch = nullptr,
    .xUnfetch = nullptr,
};

int Open(sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags, int* out_flags);

// SQLite keeps VFSs in a list of its own, and pointers to them.
struct Registered {
  Registered() {
    if (real == nullptr) return;
    vfs = *real;  // all but the opening of files is the real one's
    vfs.zName = "tutti-wal";
    vfs.pNext = nullptr;
    vfs.szOsFile = static_cast<int>(sizeof(WalFile)) + real->szOsFile;
    vfs.xOpen = Open;
    usable = sqlite3_vfs_register(&vfs, /*makeDflt=*/0) == SQLITE_OK;
  }
  sqlite3_vfs vfs = {};  // must be first
  sqlite3_vfs* const real = sqlite3_vfs_find(nullptr);
  bool usable = false;
};

int Open(sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags, int* out_flags) {
  sqlite3_vfs* real = reinterpret_cast<Registered*>(vfs)->real;
  if ((flags & SQLITE_OPEN_WAL) == 0) return real->xOpen(real, name, file, flags, out_flags);
  WalFile& wal = Of(file);
  wal.base.pMethods = nullptr;  // not to be closed, should this fail
  wal.real = reinterpret_cast<sqlite3_file*>(&wal + 1);
  wal.gathered = new (std::nothrow) std::string;
  if (wal.gathered == nullptr) return SQLITE_NOMEM;
  wal.begin = 0;
  wal.lost = -1;
  int result = real->xOpen(real, name, wal.real, flags, out_flags);
  if (result != SQLITE_OK) {
    if (wal.real->pMethods != nullptr) wal.real->pMethods->xClose(wal.real);
    delete wal.gathered;
    return result;
  }
  wal.base.pMethods = &kWalMethods;
  return SQLITE_OK;
}

}  // namespace

const char* WalVfs() {
  static Registered registered;
  return registered.usable ? registered.vfs.zName : nullptr;
}

}  // namespace tutti::state_manager
