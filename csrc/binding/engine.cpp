// atoll._core.Engine.
#include <pybind11/stl.h>

#include <algorithm>
#include <mutex>
#include <utility>
#include <vector>

#include "binding/convert.h"

namespace reef::binding {

namespace {

// Python objects that the reactor has let go of. The reactor must not take the interpreter lock, so
// it only puts them here; a thread that holds the lock drops them.
class Attic {
 public:
  void put(PyObject* object) {
    const std::lock_guard lock(mutex_);
    objects_.push_back(object);
  }
  void clear() {  // with the interpreter lock held
    std::vector<PyObject*> objects;
    {
      const std::lock_guard lock(mutex_);
      objects.swap(objects_);
    }
    for (PyObject* object : objects) {
      Py_DECREF(object);
    }
  }

 private:
  std::mutex mutex_;
  std::vector<PyObject*> objects_;
};

class PyEngine {
 public:
  explicit PyEngine(const EngineOptions& options) {
    const py::gil_scoped_release unlocked;
    engine_ = take_or_throw(Engine::create(options));
  }
  ~PyEngine() {
    {
      const py::gil_scoped_release unlocked;
      engine_.reset();
    }
    attic_->clear();
  }
  PyEngine(const PyEngine&) = delete;
  PyEngine& operator=(const PyEngine&) = delete;

  Engine& engine() { return *engine_; }

  std::optional<Outcome> wait(OpId op, Nanos timeout);
  void publish(std::uint64_t revision, const std::vector<std::pair<std::uintptr_t, std::uint64_t>>&
                                           buffers, py::object keep_alive);
  std::vector<Event> take_events() {
    std::vector<Event> events = engine_->take_events();
    attic_->clear();
    return events;
  }
  void close() {
    {
      const py::gil_scoped_release unlocked;
      engine_->close();
    }
    attic_->clear();
  }

 private:
  std::unique_ptr<Engine> engine_;
  std::shared_ptr<Attic> attic_ = std::make_shared<Attic>();
};

// In slices, so that Ctrl-C is heard.
std::optional<Outcome> PyEngine::wait(OpId op, Nanos timeout) {
  constexpr Nanos kSlice = 100 * kMillisecond;
  const Nanos deadline = to_deadline(timeout);
  while (true) {
    std::optional<Outcome> outcome;
    Nanos left = timeout;
    {
      const py::gil_scoped_release unlocked;
      outcome = engine_->wait(op, std::min(left, kSlice));
      left = deadline == kNever ? kNever : deadline - monotonic_now();
    }
    if (outcome || left <= 0) {
      return outcome;
    }
    timeout = left;
    if (PyErr_CheckSignals() != 0) {
      throw py::error_already_set();
    }
  }
}

void PyEngine::publish(std::uint64_t revision,
                       const std::vector<std::pair<std::uintptr_t, std::uint64_t>>& buffers,
                       py::object keep_alive) {
  Engine::Published state;
  state.revision = revision;
  for (const auto& [address, bytes] : buffers) {
    state.buffers.push_back(memory(address, bytes));
  }
  state.keep_alive = std::shared_ptr<void>(
      keep_alive.release().ptr(),
      [attic = attic_](void* object) { attic->put(static_cast<PyObject*>(object)); });
  {
    const py::gil_scoped_release unlocked;
    engine_->publish(std::move(state));
  }
  attic_->clear();
}

OpId submit(PyEngine& self, const OpRequest& request) {
  return take_or_throw(self.engine().submit(request));
}

OpRequest request_of(OpKind kind, Channel channel, std::uintptr_t source, std::uintptr_t target,
                     std::uint64_t count, Nanos timeout) {
  OpRequest request;
  request.kind = kind;
  request.channel = channel;
  request.count = count;
  const bool no_source = kind == OpKind::broadcast && source == 0;  // only the root's is read
  request.in = no_source ? std::span<std::byte>{} : vector_memory(source, count);
  request.out = vector_memory(target, count);
  request.deadline = to_deadline(timeout);
  return request;
}

std::unique_ptr<PyEngine> create(const py::bytes& peer, const py::bytes& secret,
                                 const std::string& bind_host, std::uint16_t bind_port,
                                 std::uint32_t connections, double heartbeat, double silence,
                                 double dial_timeout) {
  EngineOptions options;
  options.self = to_peer(peer);
  options.secret = to_secret(secret);
  options.bind_host = bind_host;
  options.bind_port = bind_port;
  options.connections = connections;
  options.heartbeat = to_nanos(heartbeat, "heartbeat_s");
  options.silence = to_nanos(silence, "silence_s");
  options.dial_timeout = to_nanos(dial_timeout, "dial_timeout_s");
  return std::make_unique<PyEngine>(options);
}

using PyClass = py::class_<PyEngine>;

void define_membership(PyClass& engine) {
  engine
      .def("expect",
           [](PyEngine& self, const py::bytes& peer) { self.engine().expect(to_peer(peer)); },
           py::arg("peer"))
      .def("dial",
           [](PyEngine& self, const py::bytes& peer, const std::string& host,
              std::uint16_t port) { self.engine().dial(to_peer(peer), host, port); },
           py::arg("peer"), py::arg("host"), py::arg("port"))
      .def("drop",
           [](PyEngine& self, const py::bytes& peer) { self.engine().drop(to_peer(peer)); },
           py::arg("peer"))
      .def("fence",
           [](PyEngine& self, std::uint64_t attempt, const std::string& kind) {
             self.engine().fence(attempt, to_change(kind));
           },
           py::arg("attempt"), py::arg("kind"))
      .def("install",
           [](PyEngine& self, Epoch epoch, const std::vector<py::bytes>& members,
              const std::map<Channel, Sequence>& starts, const std::string& kind) {
             View view;
             view.epoch = epoch;
             for (const py::bytes& member : members) {
               view.members.push_back(to_peer(member));
             }
             self.engine().install(view, starts, to_change(kind));
           },
           py::arg("epoch"), py::arg("members"), py::arg("starts"), py::arg("kind"));
}

void define_ops(PyClass& engine) {
  engine
      .def("all_reduce",
           [](PyEngine& self, Channel channel, std::uintptr_t source, std::uintptr_t target,
              std::uint64_t count, const std::string& plan, Nanos timeout) {
             OpRequest request =
                 request_of(OpKind::all_reduce, channel, source, target, count, timeout);
             request.plan = to_plan(plan);
             return submit(self, request);
           },
           py::arg("channel"), py::arg("source"), py::arg("target"), py::arg("count"),
           py::kw_only(), py::arg("plan") = "auto", py::arg("timeout_ns") = kNever)
      .def("broadcast",
           [](PyEngine& self, Channel channel, std::uintptr_t source, std::uintptr_t target,
              std::uint64_t count, const py::bytes& root, Nanos timeout) {
             OpRequest request =
                 request_of(OpKind::broadcast, channel, source, target, count, timeout);
             request.root = to_peer(root);
             return submit(self, request);
           },
           py::arg("channel"), py::arg("source"), py::arg("target"), py::arg("count"),
           py::arg("root"), py::kw_only(), py::arg("timeout_ns") = kNever)
      .def("barrier",
           [](PyEngine& self, Channel channel, Nanos timeout) {
             return submit(self, request_of(OpKind::barrier, channel, 0, 0, 0, timeout));
           },
           py::arg("channel"), py::kw_only(), py::arg("timeout_ns") = kNever)
      .def("exchange",
           [](PyEngine& self, Channel channel, std::uintptr_t source, std::uintptr_t target,
              std::uint64_t count, const py::bytes& partner, Sequence tag, Nanos timeout) {
             OpRequest request =
                 request_of(OpKind::exchange, channel, source, target, count, timeout);
             request.partner = to_peer(partner);
             request.tag = tag;
             return submit(self, request);
           },
           py::arg("channel"), py::arg("source"), py::arg("target"), py::arg("count"),
           py::arg("partner"), py::arg("tag"), py::kw_only(), py::arg("timeout_ns") = kNever)
      .def("abort", [](PyEngine& self, OpId op) { self.engine().abort(op); }, py::arg("op"))
      .def("wait", &PyEngine::wait, py::arg("op"), py::arg("timeout_ns"))
      .def("release", [](PyEngine& self, OpId op) { self.engine().release(op); }, py::arg("op"));
}

void define_state(PyClass& engine) {
  engine
      .def("publish", &PyEngine::publish, py::arg("revision"), py::arg("buffers"),
           py::arg("keep_alive"))
      .def("unpublish", [](PyEngine& self) { self.engine().unpublish(); })
      .def("fetch",
           [](PyEngine& self, const py::bytes& donor, std::optional<std::uint64_t> revision,
              std::uint32_t buffer, std::uint64_t offset, std::uintptr_t target,
              std::uint64_t length, Nanos timeout) {
             return take_or_throw(self.engine().fetch(to_peer(donor),
                                                      revision.value_or(UINT64_MAX), buffer,
                                                      offset, memory(target, length), timeout));
           },
           py::arg("donor"), py::arg("revision"), py::arg("buffer"), py::arg("offset"),
           py::arg("target"), py::arg("length"), py::arg("timeout_ns"));
}

}  // namespace

void define_engine(py::module_& module) {
  PyClass engine(module, "Engine", py::is_final());
  engine
      .def(py::init(&create), py::kw_only(), py::arg("peer"), py::arg("secret"),
           py::arg("bind_host") = "127.0.0.1", py::arg("bind_port") = 0,
           py::arg("connections") = 2, py::arg("heartbeat_s") = 0.5, py::arg("silence_s") = 5.0,
           py::arg("dial_timeout_s") = 10.0)
      .def_property_readonly("port", [](PyEngine& self) { return self.engine().port(); })
      .def_property_readonly("event_fd", [](PyEngine& self) { return self.engine().event_fd(); })
      .def("take_events", &PyEngine::take_events)
      .def("stats",
           [](PyEngine& self) {
             const py::gil_scoped_release unlocked;
             return self.engine().stats();
           })
      .def("close", &PyEngine::close);
  define_membership(engine);
  define_ops(engine);
  define_state(engine);
}

}  // namespace reef::binding
