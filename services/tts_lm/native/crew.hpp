// Threads for one product at a time.
//
// Workers take chunks from a counter, so that the caller never waits for a thread that the machine is not running.
// They spin for the time between two products and sleep after that.

#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>
#include <type_traits>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

inline void breathe() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

class Crew {
 public:
  typedef void (*Work)(void* context, int64_t chunk);

  void hire(int count) {
    while (size_ < count - 1) {
      std::thread([this, number = size_ + 1] { serve(number); }).detach();
      size_++;
    }
    wanted_ = count;
  }

  int count() const { return wanted_; }

  void run(int64_t chunks, Work work, void* context) {
    std::unique_lock alone(mutex_, std::defer_lock);  // a second engine in this process computes on its own thread
    if (wanted_ == 1 || chunks == 1 || !alone.try_lock()) {
      for (int64_t i = 0; i < chunks; i++) work(context, i);
      return;
    }
    work_ = work, context_ = context;
    pending_.store(chunks, std::memory_order_relaxed);
    generation_++;
    tickets_.store(uint64_t(generation_) << 32 | uint64_t(chunks), std::memory_order_seq_cst);
    if (asleep_.load(std::memory_order_seq_cst)) tickets_.notify_all();
    while (take()) {
    }
    for (int turns = 0; pending_.load(std::memory_order_acquire); turns++) {
      if (turns < SPINS) breathe();
      else std::this_thread::yield();
    }
  }

 private:
  static constexpr int SPINS = 4000;  // about 50 us

  bool take() {
    uint64_t seen = tickets_.load(std::memory_order_acquire);
    while (uint32_t(seen)) {
      if (tickets_.compare_exchange_weak(seen, seen - 1, std::memory_order_acq_rel)) {
        work_(context_, int64_t(uint32_t(seen)) - 1);
        pending_.fetch_sub(1, std::memory_order_release);
        return true;
      }
    }
    return false;
  }

  void serve(int number) {
    for (int idle = 0;;) {
      if (number < wanted_.load(std::memory_order_relaxed) && take()) {
        idle = 0;
      } else if (++idle < SPINS) {
        breathe();
      } else {
        uint64_t seen = tickets_.load();
        asleep_++;
        if (!uint32_t(seen) || number >= wanted_) tickets_.wait(seen);
        asleep_--;
        idle = 0;
      }
    }
  }

  std::mutex mutex_;
  int size_ = 0;
  std::atomic<int> wanted_{1}, asleep_{0};
  std::atomic<int64_t> pending_{0};
  uint32_t generation_ = 0;
  alignas(64) std::atomic<uint64_t> tickets_{0};  // generation and chunks not taken yet
  Work work_ = nullptr;
  void* context_ = nullptr;
};

inline Crew& crew = *new Crew;  // never torn down: its threads may be asleep when the process ends

template <class F>
void in_parallel(int64_t chunks, F&& body) {
  typedef std::remove_reference_t<F> Body;
  crew.run(chunks, [](void* context, int64_t chunk) { (*static_cast<Body*>(context))(chunk); }, &body);
}
