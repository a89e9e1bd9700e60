// Folders of documents, read and indexed once and kept while the files stay as they are.
#pragma once

#include <list>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/sync/mutex.h"
#include "services/tool-service/domain/search_index.h"
#include "services/tool-service/ports/document_reader.h"
#include "services/tool-service/ports/tool.h"

namespace tutti::tool_service {

// Immutable.
struct Corpus {
  std::string folder;
  std::vector<Document> documents;
  std::vector<SkippedFile> skipped;
  std::unique_ptr<SearchIndex> index;
  const Document* Find(const std::string& name) const;
};

// Thread safe. Blocks while it reads.
class DocumentLibrary {
 public:
  struct Options {
    std::vector<std::string> roots;
    int64_t max_document_bytes = 256 << 20;
    int max_documents = 10000;
  };
  explicit DocumentLibrary(Options options);

  // Hidden files and unknown endings are left alone; files that cannot be read are in `skipped`. PERMISSION_DENIED:
  // outside the roots. NOT_FOUND: no such folder. FAILED_PRECONDITION: not one readable document in it.
  // RESOURCE_EXHAUSTED: too many.
  absl::StatusOr<std::shared_ptr<const Corpus>> Open(const std::string& folder, const ToolCallInfo& info);

 private:
  static constexpr size_t kMaxKept = 8;
  struct FileStamp {
    std::string path, name;
    int64_t size = 0, modified = 0;
    bool operator==(const FileStamp& other) const {
      return path == other.path && size == other.size && modified == other.modified;
    }
  };
  struct Kept {
    std::string folder;
    std::vector<FileStamp> files;
    std::shared_ptr<const Corpus> corpus;
  };
  absl::StatusOr<std::string> Allowed(const std::string& folder) const;
  absl::StatusOr<std::vector<FileStamp>> ListFiles(const std::string& folder) const;
  absl::StatusOr<std::shared_ptr<const Corpus>> Read(const std::string& folder, const std::vector<FileStamp>& files,
                                                     const ToolCallInfo& info) const;

  Options options_;
  std::vector<std::unique_ptr<DocumentReader>> readers_;
  Mutex mutex_;  // held while reading: two callers of one folder read it once
  std::list<Kept> kept_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tutti::tool_service
