#include "runtime/telemetry/otlp_exporter.h"

#include <gtest/gtest.h>
#include <prometheus/registry.h>

#include "opentelemetry/proto/collector/trace/v1/trace_service.pb.h"
#include "runtime/rpc/local_methods.h"
#include "runtime/time/system_time.h"

namespace tutti {
namespace {

namespace otlp = opentelemetry::proto::collector::trace::v1;

// A process whose spans go to a collector of its own.
class OtlpExporterTest : public ::testing::Test {
 protected:
  OtlpExporterTest() {
    methods_.Add(env_, "opentelemetry.proto.collector.trace.v1.TraceService/Export", *this, &OtlpExporterTest::Export);
  }
  ~OtlpExporterTest() override {
    exporter_.FlushAndStop();
    scope_.CloseAndWait();
  }
  Task<absl::Status> Export(CallContext&, const otlp::ExportTraceServiceRequest& request,
                            otlp::ExportTraceServiceResponse&) {
    MutexLock lock(mutex_);
    ++exports_;
    for (const auto& resource : request.resource_spans()) {
      for (const auto& scope : resource.scope_spans()) spans_ += scope.spans_size();
    }
    co_return absl::OkStatus();
  }

  SystemClock clock_;
  SystemTimers timers_;
  Xoshiro rng_{1};
  prometheus::Registry registry_;
  RpcMetrics metrics_{registry_};
  EventLoop loop_{"collector"};
  OtlpExporter exporter_{{.delay = absl::Milliseconds(1), .instance = "test"}, loop_, timers_, clock_, rng_};
  TraceBudget budget_{clock_, 0};  // all of them
  Tracer tracer_{"test", clock_, rng_, &exporter_, 1.0, &budget_};
  Scope scope_;
  ServerEnv env_{loop_, scope_, tracer_, metrics_, clock_};
  LocalMethods methods_{timers_};
  Mutex mutex_;
  int exports_ ABSL_GUARDED_BY(mutex_) = 0, spans_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Or each export would be something to export.
TEST_F(OtlpExporterTest, ExportingWithinAProcessLeavesNoSpan) {
  tracer_.Start("work", SpanKind::kInternal, TraceContext{}).End();
  exporter_.Connect(methods_, RpcPeer());
  exporter_.FlushAndStop();
  MutexLock lock(mutex_);
  EXPECT_EQ(spans_, 1);
  EXPECT_EQ(exports_, 1);
  EXPECT_EQ(exporter_.dropped(), 0);
}

}  // namespace
}  // namespace tutti
