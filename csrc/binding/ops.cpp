// atoll._core.Engine's operations: Python's arguments become an OpRequest; the engine checks it.
//
// Sizes in elements of the dtype; request.h has a table of them.
#include <pybind11/stl.h>

#include <string>
#include <utility>
#include <vector>

#include "binding/py_engine.h"

namespace reef::binding {

namespace {

using Address = std::uintptr_t;
using Count = std::uint64_t;

constexpr const char* kNumbers = "float32";

// Without the interpreter lock: an op in place copies its input.
OpId submit(PyEngine& self, OpRequest request) {
  const py::gil_scoped_release unlocked;
  return take_or_throw(self.engine().submit(std::move(request)));
}

// What every op has.
OpRequest request_of(OpKind kind, Channel channel, std::int32_t priority, Nanos timeout, bool quiet) {
  OpRequest request;
  request.kind = kind;
  request.channel = channel;
  request.priority = priority;
  request.deadline = to_deadline(timeout);
  request.quiet = quiet;
  return request;
}

// The buffers: so many elements each, at addresses that the caller vouches for.
void set_buffers(OpRequest& request, const std::string& dtype, Address source, Count source_count,
                 Address target, Count target_count, std::uint32_t chunk_bytes) {
  request.dtype = to_dtype(dtype);
  request.in = vector_memory(source, source_count, request.dtype);
  request.out = vector_memory(target, target_count, request.dtype);
  request.chunk_bytes = chunk_bytes;
}

void set_reduction(OpRequest& request, const std::string& reduction, const std::string& codec,
                   const std::string& rounding, std::uint64_t seed, double weight) {
  request.reduction = to_reduction(reduction);
  request.codec = Codec{to_codec(codec), to_rounding(rounding), seed};
  request.weight = weight;
}

void define_reductions(PyClass& engine) {
  engine
      .def("all_reduce",
           [](PyEngine& self, Channel channel, Address source, Address target, Count count,
              const std::string& dtype, const std::string& reduction, const std::string& plan,
              const std::string& codec, const std::string& rounding, std::uint64_t seed,
              double weight, Epoch epoch, std::int32_t priority, std::uint32_t chunk_bytes,
              Nanos timeout, bool quiet, std::uint64_t note, bool overwrite) {
             OpRequest request = request_of(OpKind::all_reduce, channel, priority, timeout, quiet);
             set_buffers(request, dtype, source, count, target, count, chunk_bytes);
             set_reduction(request, reduction, codec, rounding, seed, weight);
             request.plan = to_plan(plan);
             request.count = count;
             request.epoch = epoch;
             request.note = note;
             request.overwrite = overwrite;
             return submit(self, std::move(request));
           },
           py::arg("channel"), py::arg("source"), py::arg("target"), py::arg("count"),
           py::kw_only(), py::arg("dtype") = kNumbers, py::arg("reduction") = "sum",
           py::arg("plan") = "auto", py::arg("codec") = "fp32", py::arg("rounding") = "nearest",
           py::arg("seed") = 0, py::arg("weight") = 1.0, py::arg("epoch") = 0,
           py::arg("priority") = 0, py::arg("chunk_bytes") = 0, py::arg("timeout_ns") = kNever, py::arg("quiet") = false,
           py::arg("note") = 0, py::arg("overwrite") = false)
      .def("reduce_scatter",
           [](PyEngine& self, Channel channel, Address source, Address target, Count count,
              Count target_count, const std::string& dtype, const std::string& reduction,
              const std::string& codec, const std::string& rounding, std::uint64_t seed,
              double weight, Epoch epoch, std::int32_t priority, std::uint32_t chunk_bytes,
              Nanos timeout, bool quiet) {
             OpRequest request = request_of(OpKind::reduce_scatter, channel, priority, timeout, quiet);
             set_buffers(request, dtype, source, count, target, target_count, chunk_bytes);
             set_reduction(request, reduction, codec, rounding, seed, weight);
             request.count = count;
             request.epoch = epoch;
             return submit(self, std::move(request));
           },
           py::arg("channel"), py::arg("source"), py::arg("target"), py::arg("count"),
           py::arg("target_count"), py::kw_only(), py::arg("dtype") = kNumbers,
           py::arg("reduction") = "sum", py::arg("codec") = "fp32",
           py::arg("rounding") = "nearest", py::arg("seed") = 0, py::arg("weight") = 1.0,
           py::arg("epoch") = 0, py::arg("priority") = 0, py::arg("chunk_bytes") = 0,
           py::arg("timeout_ns") = kNever, py::arg("quiet") = false);
}

void define_moves(PyClass& engine) {
  engine
      .def("all_gather",
           [](PyEngine& self, Channel channel, Address source, Address target, Count count,
              Count target_count, std::vector<Count> counts, const std::string& dtype, Epoch epoch,
              std::int32_t priority, std::uint32_t chunk_bytes, Nanos timeout, bool quiet,
              std::uint64_t note) {
             OpRequest request = request_of(OpKind::all_gather, channel, priority, timeout, quiet);
             set_buffers(request, dtype, source, count, target, target_count, chunk_bytes);
             request.count = count;
             request.counts = std::move(counts);
             request.epoch = epoch;
             request.note = note;
             return submit(self, std::move(request));
           },
           py::arg("channel"), py::arg("source"), py::arg("target"), py::arg("count"),
           py::arg("target_count"), py::kw_only(), py::arg("counts") = std::vector<Count>(),
           py::arg("dtype") = kNumbers, py::arg("epoch") = 0, py::arg("priority") = 0,
           py::arg("chunk_bytes") = 0, py::arg("timeout_ns") = kNever, py::arg("quiet") = false,
           py::arg("note") = 0)
      .def("all_to_all",
           [](PyEngine& self, Channel channel, Address source, Address target, Count count,
              Count total_count, const std::string& dtype, Epoch epoch, std::int32_t priority,
              std::uint32_t chunk_bytes, Nanos timeout, bool quiet) {
             OpRequest request = request_of(OpKind::all_to_all, channel, priority, timeout, quiet);
             set_buffers(request, dtype, source, total_count, target, total_count, chunk_bytes);
             request.count = count;
             request.epoch = epoch;
             return submit(self, std::move(request));
           },
           py::arg("channel"), py::arg("source"), py::arg("target"), py::arg("count"),
           py::arg("total_count"), py::kw_only(), py::arg("dtype") = kNumbers,
           py::arg("epoch") = 0, py::arg("priority") = 0, py::arg("chunk_bytes") = 0,
           py::arg("timeout_ns") = kNever, py::arg("quiet") = false)
      .def("broadcast",
           [](PyEngine& self, Channel channel, Address source, Address target, Count count,
              const py::bytes& root, const std::string& dtype, Epoch epoch, std::int32_t priority,
              std::uint32_t chunk_bytes, Nanos timeout, bool quiet,
              bool overwrite) {
             OpRequest request = request_of(OpKind::broadcast, channel, priority, timeout, quiet);
             const Count read = source == 0 ? 0 : count;  // only the root's is
             set_buffers(request, dtype, source, read, target, count, chunk_bytes);
             request.count = count;
             request.root = to_peer(root);
             request.epoch = epoch;
             request.overwrite = overwrite;
             return submit(self, std::move(request));
           },
           py::arg("channel"), py::arg("source"), py::arg("target"), py::arg("count"),
           py::arg("root"), py::kw_only(), py::arg("dtype") = kNumbers, py::arg("epoch") = 0,
           py::arg("priority") = 0, py::arg("chunk_bytes") = 0, py::arg("timeout_ns") = kNever, py::arg("quiet") = false,
           py::arg("overwrite") = false)
      .def("barrier",
           [](PyEngine& self, Channel channel, Epoch epoch, Nanos timeout, bool quiet) {
             OpRequest request = request_of(OpKind::barrier, channel, 0, timeout, quiet);
             request.epoch = epoch;
             return submit(self, std::move(request));
           },
           py::arg("channel"), py::kw_only(), py::arg("epoch") = 0,
           py::arg("timeout_ns") = kNever, py::arg("quiet") = false);
}

OpId submit_pair(PyEngine& self, OpRequest request, Count count, const py::bytes& partner,
                 Sequence tag) {
  request.count = count;
  request.partner = to_peer(partner);
  request.tag = tag;
  return submit(self, std::move(request));
}

void define_pairs(PyClass& engine) {
  engine
      .def("exchange",
           [](PyEngine& self, Channel channel, Address source, Address target, Count count,
              const py::bytes& partner, Sequence tag, const std::string& dtype,
              std::int32_t priority, std::uint32_t chunk_bytes, Nanos timeout, bool quiet) {
             OpRequest request = request_of(OpKind::exchange, channel, priority, timeout, quiet);
             set_buffers(request, dtype, source, count, target, count, chunk_bytes);
             return submit_pair(self, std::move(request), count, partner, tag);
           },
           py::arg("channel"), py::arg("source"), py::arg("target"), py::arg("count"),
           py::arg("partner"), py::arg("tag"), py::kw_only(), py::arg("dtype") = kNumbers,
           py::arg("priority") = 0, py::arg("chunk_bytes") = 0, py::arg("timeout_ns") = kNever, py::arg("quiet") = false)
      .def("send",
           [](PyEngine& self, Channel channel, Address source, Count count,
              const py::bytes& partner, Sequence tag, const std::string& dtype,
              std::int32_t priority, std::uint32_t chunk_bytes, Nanos timeout, bool quiet) {
             OpRequest request = request_of(OpKind::send, channel, priority, timeout, quiet);
             set_buffers(request, dtype, source, count, 0, 0, chunk_bytes);
             return submit_pair(self, std::move(request), count, partner, tag);
           },
           py::arg("channel"), py::arg("source"), py::arg("count"), py::arg("partner"),
           py::arg("tag"), py::kw_only(), py::arg("dtype") = kNumbers, py::arg("priority") = 0,
           py::arg("chunk_bytes") = 0, py::arg("timeout_ns") = kNever, py::arg("quiet") = false)
      .def("recv",
           [](PyEngine& self, Channel channel, Address target, Count count,
              const py::bytes& partner, Sequence tag, const std::string& dtype,
              std::int32_t priority, std::uint32_t chunk_bytes, Nanos timeout, bool quiet) {
             OpRequest request = request_of(OpKind::recv, channel, priority, timeout, quiet);
             set_buffers(request, dtype, 0, 0, target, count, chunk_bytes);
             return submit_pair(self, std::move(request), count, partner, tag);
           },
           py::arg("channel"), py::arg("target"), py::arg("count"), py::arg("partner"),
           py::arg("tag"), py::kw_only(), py::arg("dtype") = kNumbers, py::arg("priority") = 0,
           py::arg("chunk_bytes") = 0, py::arg("timeout_ns") = kNever, py::arg("quiet") = false);
}

}  // namespace

void define_ops(PyClass& engine) {
  define_reductions(engine);
  define_moves(engine);
  define_pairs(engine);
  engine
      .def("watch", [](PyEngine& self, OpId op) { self.engine().watch(op); }, py::arg("op"))
      .def("abort", [](PyEngine& self, OpId op) { self.engine().abort(op); }, py::arg("op"))
      .def("listen", [](PyEngine& self, Channel channel) { self.engine().listen(channel); },
           py::arg("channel"))
      .def("wait", &PyEngine::wait, py::arg("op"), py::arg("timeout_ns"))
      .def("release", [](PyEngine& self, OpId op) { self.engine().release(op); }, py::arg("op"));
}

}  // namespace reef::binding
