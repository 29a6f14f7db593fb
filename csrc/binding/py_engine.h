// What stands behind atoll._core.Engine: the engine, and the Python objects that it borrows.
//
// Threads: Python's; methods are called with the interpreter lock held, and release it where they
// may wait.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "binding/convert.h"

namespace reef::binding {

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

using PyClass = py::class_<PyEngine>;

void define_ops(PyClass& engine);

}  // namespace reef::binding
